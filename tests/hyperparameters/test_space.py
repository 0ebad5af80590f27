"""Shapes are priced by the ledger before they are made, and none costs more than the budget."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minilm.config import ModelConfig, TrainConfig
from minilm.config.presets import find_preset
from minilm.errors import ConfigError
from minilm.hyperparameters import energy
from minilm.hyperparameters.budget import JOULES_PER_BYTE, JOULES_PER_FLOP, Budget, price
from minilm.hyperparameters.space import WIDTH_STEP, Candidate, Infeasible, Space
from minilm.hyperparameters.trial import TextOptions
from minilm.training.data_source import DataSource

BUDGETS = (
    Budget(params=300_000),
    Budget(bytes=1_500_000),
    Budget(flops=500_000),
    Budget(joules=2e-5),
    Budget(params=300_000, flops=400_000),
)
SpaceOf = Callable[..., Space]


def test_a_price_is_what_can_be_counted_by_hand() -> None:
    model = ModelConfig(
        vocab_size=10, context_length=4, num_layers=1, d_model=8, num_heads=1, norm="rmsnorm"
    )
    cost = price(model, TrainConfig(batch_size=2, optimizer="adamw"))
    matrices = 4 * 8 * 8 + 2 * 8 * 32
    biases, norms = 4 * 8 + 32 + 8, 3 * 8
    head = table = 10 * 8
    assert cost.params == matrices + biases + norms + head + table
    assert cost.bytes == 4 * cost.params + 4 * (2 * 4 * 8)
    assert cost.flops == 2 * (matrices + head) + 2 * 2 * 4 * 8
    assert cost.training_flops == 3 * cost.flops
    # Weights are read twice, gradients written; then read, weights read and written, two moments both.
    per_step = 4 * cost.params * (2 + 1 + 1 + 2 + 4)
    assert cost.bytes_moved > per_step / 8
    per_batch = price(model, TrainConfig(batch_size=4, optimizer="adamw"))
    assert cost.bytes_moved - per_batch.bytes_moved == pytest.approx(per_step / 16, rel=0.02)
    joules = JOULES_PER_FLOP * cost.training_flops + JOULES_PER_BYTE * cost.bytes_moved
    assert cost.joules == pytest.approx(joules)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("preset", ["nano", "llama-3-8b"])
def test_no_shape_exceeds_the_budget_and_each_fills_its_share(
    space: SpaceOf, budget: Budget, preset: str
) -> None:
    searched = space(budget, preset, model={"context_length": 64})
    ranges = searched.ranges()
    layers = sorted({int(ranges["num_layers"].low), int(ranges["num_layers"].high)})
    seen = 0
    for number, share in itertools.product(layers, (1 / 8, 0.4, 1.0)):
        candidate = searched.candidate({"num_layers": number, "budget_share": share})
        if isinstance(candidate, Infeasible):
            continue
        seen += 1
        fields = {"vocab_size": 512, **candidate.model}
        model = find_preset(preset).model_config(**fields)
        train = find_preset(preset).train_config(**candidate.settings)
        assert price(model, train) == candidate.price, "of the options that the run is given"
        assert budget.allows(candidate.price)
        if model.d_model > WIDTH_STEP:
            assert budget.share(candidate.price) <= share * 1.000001
        width = model.d_model + WIDTH_STEP
        wider = searched._model_of(number, width, model.dropout)
        assert wider is None or budget.share(price(wider, train)) > share
        assert candidate.flops <= searched.trial_flops
        assert candidate.flops > 0.5 * searched.trial_flops or candidate.settings["max_steps"] < 4
    assert seen


@pytest.mark.parametrize(
    "value", [1e300, -1e300, math.nan, math.inf, "x", None, [1], True], ids=repr
)
def test_parameters_out_of_range_are_at_its_end(space: SpaceOf, value: Any) -> None:
    searched = space(Budget(params=300_000))
    candidate = searched.candidate(dict.fromkeys(searched.ranges(), value))
    assert isinstance(candidate, Candidate | Infeasible)
    if isinstance(candidate, Candidate):
        assert candidate.price.params <= 300_000
        assert 4 <= candidate.settings["batch_size"] <= 32


def test_the_first_trial_is_the_preset_where_the_budget_has_room(space: SpaceOf) -> None:
    searched = space(Budget(params=2_000_000))
    candidate = searched.candidate(searched.preset_parameters())
    assert isinstance(candidate, Candidate)
    assert {
        name: candidate.model[name] for name in ("num_layers", "d_model", "num_heads", "dropout")
    } == {"num_layers": 4, "d_model": 128, "num_heads": 4, "dropout": 0.0}
    assert candidate.settings["learning_rate"] == 0.02
    assert candidate.settings["batch_size"] == 8
    assert candidate.tokens == 100_000 // 1024 * 1024


def test_what_is_set_is_not_searched(space: SpaceOf) -> None:
    model, settings = {"num_layers": 3, "d_model": 48, "num_heads": 3}, {"batch_size": 4}
    searched = space(Budget(params=300_000), model=model, settings=settings)
    assert set(searched.ranges()) == {"learning_rate", "muon_learning_rate"}
    candidate = searched.candidate({})
    assert isinstance(candidate, Candidate)
    assert {**candidate.model, **model} == candidate.model
    assert candidate.settings["batch_size"] == 4
    heads = space(Budget(params=300_000), model={"num_heads": 8})
    found = heads.candidate(heads.preset_parameters())
    assert isinstance(found, Candidate)
    assert found.model["num_heads"] == 8
    adamw = space(Budget(params=300_000), settings={"optimizer": "adamw"})
    assert "muon_learning_rate" not in adamw.ranges()
    rates = {"learning_rate": 0.01, "muon_learning_rate": 0.02}
    with pytest.raises(ConfigError, match="every field of the search is set"):
        space(Budget(params=300_000), model=model, settings=settings | rates).check()


def test_budgets_that_are_none(space: SpaceOf) -> None:
    with pytest.raises(ConfigError, match="no budget"):
        Budget()
    with pytest.raises(ConfigError, match="joules"):
        Budget(joules=math.nan)
    with pytest.raises(ConfigError, match=r"room for a model of this vocabulary$"):
        space(Budget(params=1000)).check()
    with pytest.raises(ConfigError, match="of this vocabulary and of the fields that are set"):
        space(Budget(params=100_000), model={"d_model": 4096}).check()


def test_measured_energy_scales_the_estimate(
    space: SpaceOf,
    text_file: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A counter is read around some steps of the preset; without one there is no factor."""
    model = {"context_length": 16, "num_layers": 2, "d_model": 16, "num_heads": 2}
    settings = {"batch_size": 2, "device": "cpu", "dtype": "float32"}
    searched = space(Budget(joules=1.0), model=model, settings=settings)
    options = TextOptions("nano", DataSource(str(text_file), (), cache), "byte", None)

    class Counter:
        def __init__(self, *_: object) -> None:
            self.value: float | None = 3.0

        def joules(self) -> float | None:
            return self.value

    monkeypatch.setattr(energy, "EnergyMeter", Counter)
    factor = energy.energy_factor(options, searched)
    base = find_preset("nano").model_config(vocab_size=256, **model)
    estimate = price(base, TrainConfig(batch_size=2)).joules
    assert factor == pytest.approx(3.0 / (energy.STEPS * 2 * 16) / estimate)
    assert price(base, TrainConfig(batch_size=2), energy_factor=2.0).joules == 2 * estimate
    monkeypatch.setattr(Counter, "joules", lambda _: None)
    assert energy.energy_factor(options, searched) is None
