"""The learning rate, the momentum and the size of batches over the steps of a run."""

import itertools
import math

import pytest

from minilm.config import TrainConfig
from minilm.training.lr_schedule import batch_shape, lr_multiplier, momentum

FIELDS = {"max_steps": 110, "warmup_steps": 10, "final_lr_fraction": 0.1}


def rates(**fields: object) -> list[float]:
    config = TrainConfig(**FIELDS | fields)
    return [lr_multiplier(step, config) for step in range(config.max_steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
def test_warm_up_is_linear_and_never_zero(schedule: str) -> None:
    assert rates(schedule=schedule)[:10] == pytest.approx([0.1 * n for n in range(1, 11)])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_decay_falls_to_the_floor_after_the_last_step(schedule: str) -> None:
    values = rates(schedule=schedule, max_steps=110)
    assert values[10] == 1.0
    assert 0.1 < values[-1] < 0.2
    after = lr_multiplier(110, TrainConfig(**FIELDS | {"schedule": schedule, "max_steps": 110}))
    assert after == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(values[10:]))


def test_the_shapes() -> None:
    middle = 60  # halfway between the steps 10 and 110
    assert rates(schedule="linear")[middle] == pytest.approx(0.55)
    assert rates(schedule="cosine")[middle] == pytest.approx(0.55)
    quarter = rates(schedule="cosine")[10 + 25]
    assert quarter == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert set(rates(schedule="constant")[10:]) == {1.0}
    stable = rates(schedule="wsd", decay_fraction=0.2)
    assert set(stable[10:89]) == {1.0}
    assert stable[89] < 1.0


def test_one_step_and_no_warm_up() -> None:
    assert rates(max_steps=1, warmup_steps=0, schedule="linear") == [1.0]
    assert rates(max_steps=3, warmup_steps=50, schedule="cosine") == pytest.approx(
        [0.02, 0.04, 0.06]
    )


def test_momentum_rises_linearly_to_its_value_and_never_falls() -> None:
    config = TrainConfig(muon_momentum=0.95, momentum_warmup_steps=4)
    values = [momentum(step, config) for step in range(6)]
    assert values == pytest.approx([0.85, 0.875, 0.9, 0.925, 0.95, 0.95])
    assert momentum(0, TrainConfig(muon_momentum=0.95)) == 0.95
    low = TrainConfig(muon_momentum=0.5, momentum_warmup_steps=4)
    assert momentum(0, low) == 0.5


def test_batches_and_lengths_double_until_they_are_full() -> None:
    config = TrainConfig(
        max_steps=100,
        batch_size=24,
        initial_batch_size=6,
        initial_context_length=16,
        growth_fraction=0.6,
    )
    shapes = [batch_shape(step, config, 128) for step in range(100)]
    assert [rows for rows, _ in shapes] == [6] * 30 + [12] * 30 + [24] * 40
    assert [length for _, length in shapes] == [16] * 20 + [32] * 20 + [64] * 20 + [128] * 40


def test_without_growth_batches_are_full_at_once() -> None:
    assert batch_shape(0, TrainConfig(batch_size=8), 32) == (8, 32)
    at_once = TrainConfig(batch_size=8, initial_batch_size=2, growth_fraction=0.0)
    assert batch_shape(0, at_once, 32) == (8, 32)
    # A length that no doubling reaches ends at the full one.
    odd = TrainConfig(max_steps=10, batch_size=7, initial_batch_size=3, growth_fraction=1.0)
    assert [batch_shape(step, odd, 5)[0] for step in range(10)] == [3] * 5 + [6] * 5
