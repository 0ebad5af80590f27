"""What is trained of a run: its share, its memory, and what fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minilm.architectures.minilm import layout
from minilm.cli.inspect import main
from minilm.config import ModelConfig
from minilm.config.lora import LoraConfig
from minilm.costs import hardware
from minilm.costs.fits import fits
from minilm.costs.training_step import loaded_bytes
from minilm.errors import InputError
from minilm.inspection import extras
from minilm.inspection.inspector import inspect, inspect_with_sources
from minilm.operations.prune import prune
from minilm.operations.quantize import quantize
from tests.interop.shapes import SHAPES, make_run
from tests.transforms.adapters import make_adapter_run


def frozen_run(folder: Path, words: object) -> Path:
    run = make_run(folder, SHAPES["llama"][1])
    record = json.loads((run / "config.json").read_text())
    record["began_with"] = {"freeze": words}
    (run / "config.json").write_text(json.dumps(record))
    return run


def test_a_run_that_freezes(tmp_path: Path) -> None:
    run = frozen_run(tmp_path / "run", ["attention", "embedding"])
    report = inspect(run)
    total = report.parameters.total
    trained = total - sum(
        each.count
        for each in report.components
        if each.name.startswith(("attention", "token")) and each.name != "attention norm"
    )
    assert report.verified
    assert 0 < trained == report.parameters.trainable < total
    assert {each.name: each.count for each in report.conventions}["trainable"] == trained
    assert any(f"trainable: {trained:,} of {total:,}" in note for note in report.notes)
    training = report.memory["training"]
    assert training == {
        "weights": 4 * total,
        "gradients": 4 * trained,
        "optimizer": 8 * trained,
        "total": 4 * total + 12 * trained,
    }
    activations = report.memory["activations"]
    assert activations["saved"] == activations["measured"]["saved"]
    rows = extras.with_fits(inspect_with_sources(run), "24GB", context=None, batch=1).fits
    assert rows is not None
    # AdamW's moments, and a count of steps for each tensor.
    states = {fit.states for fit in rows if fit.precision == "adamw_float32"}
    assert states == {8 * trained + 4 * _trained_tensors(run)}
    assert {fit.use for fit in rows} == {"inference", "training"}


def test_what_is_made_of_it_freezes_nothing(tmp_path: Path) -> None:
    run = frozen_run(tmp_path / "run", ["attention", "embedding"])
    prune(run, tmp_path / "pruned", sparsity=0.5, method="magnitude", device="cpu")
    quantize(run, tmp_path / "packed", format="int8", device="cpu")
    for name in ("pruned", "packed"):
        report = inspect(tmp_path / name)
        assert report.parameters.trainable == report.parameters.total
        assert not any("frozen" in note for note in report.notes)
        assert "freeze" not in (tmp_path / name / "config.json").read_text()


def _trained_tensors(run: Path) -> int:
    declared = inspect_with_sources(run).layout
    assert declared is not None
    trained = [each for each in declared.tensors if not each.frozen]
    return len(list(declared.named_tensors(trained)))


@pytest.mark.parametrize("words", ["attention", [1], ["atention"]])
def test_a_record_that_freezes_nothing_known(
    words: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(frozen_run(tmp_path / "run", words))]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("format", ["", "int8"])
def test_an_adapter(format: str, tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["llama"][1])
    whole = layout(ModelConfig(**SHAPES["llama"][1]))
    if format:
        quantize(base, tmp_path / "packed", format=format)
        base = tmp_path / "packed"
    make_adapter_run(base, tmp_path / "run", LoraConfig(rank=2))
    report = inspect(tmp_path / "run")
    trained = report.parameters.trainable
    # A packed base is in memory as it is packed.
    assert report.memory["training"]["weights"] == loaded_bytes(whole, format) + 4 * trained
    activations = report.memory["activations"]
    assert activations["saved"] == activations["measured"]["saved"]
    rows = extras.with_fits(
        inspect_with_sources(tmp_path / "run"), "24GB", context=None, batch=1
    ).fits
    assert rows is not None
    (plain, checkpointed) = (fit for fit in rows if fit.use == "LoRA")
    assert plain.precision == f"lora_{format or 'float32'}"
    assert (plain.lora_rank, plain.own, plain.checkpointing) == (2, True, False)
    assert plain.weights == loaded_bytes(whole, format) + 4 * trained
    assert checkpointed.required < plain.required
    with pytest.raises(InputError, match="--lora-rank: 3 with a run that is an adapter of rank 2"):
        extras.with_fits(
            inspect_with_sources(tmp_path / "run"), "24GB", context=None, batch=1, lora_rank=3
        )


def test_the_memory_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "physical_memory", lambda: 2**34)
    inspection = inspect_with_sources("nano")
    rows = extras.with_fits(inspection, "ram", context=None, batch=1).fits
    assert rows is not None
    assert {(fit.device, fit.budget, fit.cards) for fit in rows} == {("cpu", 2**34, 1)}
    on_card = extras.with_fits(inspection, "16GiB", context=None, batch=1).fits
    assert on_card is not None
    # Without a CUDA context.
    assert all(one.overhead < two.overhead for one, two in zip(rows, on_card, strict=True))
    monkeypatch.setattr(hardware, "physical_memory", lambda: None)
    with pytest.raises(InputError, match="--fits: RAM, which this system does not tell"):
        extras.with_fits(inspection, "RAM", context=None, batch=1)


def test_the_narrower_side_bounds_the_rank_that_is_assumed() -> None:
    narrow = ModelConfig(
        vocab_size=64, context_length=32, num_layers=1, d_model=16, num_heads=4, num_kv_heads=1
    )
    assert narrow.head_dim == 4
    own = [fit for fit in fits(layout(narrow), 10**9, config=narrow) if fit.own]
    assert {fit.lora_rank for fit in own if fit.use == "LoRA"} == {4}


def test_what_is_quantized_is_trained_by_an_adapter_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", SHAPES["llama"][1])
    quantize(run, tmp_path / "int8", format="int8", device="cpu")
    inspection = inspect_with_sources(tmp_path / "int8")
    rows = extras.with_fits(inspection, "24GB", context=None, batch=1).fits
    assert rows is not None
    own = {(fit.use, fit.precision) for fit in rows if fit.own}
    assert own == {("inference", "int8"), ("LoRA", "lora_int8")}
    assert not any(fit.use == "training" for fit in rows)
