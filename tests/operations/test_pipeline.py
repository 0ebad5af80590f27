"""Prune, recover with an adapter, merge, quantize, export: each step is a run that is verified."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import minilm
from minilm.checkpoint import load
from minilm.errors import ConfigError, InputError
from minilm.operations.evaluate import evaluate
from minilm.operations.merge import merge
from minilm.runs import files as run_files
from minilm.text.chat_template import PLAIN
from minilm.training.train import finetune, resume
from minilm.transforms.quantize import QuantizedLinear
from tests.conftest import TINY_SETTINGS, train_tiny

SETTINGS = TINY_SETTINGS | {"max_steps": 6, "eval_every": 3, "device": "cpu"}


@pytest.fixture(scope="module")
def wide_run(tmp_path_factory: pytest.TempPathFactory, text_file: Path, cache: Path) -> Path:
    """A run whose rows are filled by the blocks of NF4."""
    folder = tmp_path_factory.mktemp("runs") / "wide"
    return train_tiny(folder, text_file, cache, {"d_model": 64, "d_feed_forward": 128})


def logits(run: Path) -> torch.Tensor:
    model, tokenizer = load(run)
    tokens = torch.from_numpy(tokenizer.encode("the cat sees the"))[None]
    with torch.no_grad():
        result: torch.Tensor = model(tokens)
    return result


def test_a_model_is_pruned_recovered_quantized_and_exported(
    tiny_run: Path, tmp_path: Path, text_file: Path, cache: Path
) -> None:
    pruned, adapter, merged, quantized, shared = (tmp_path / name for name in "pamqs")
    source = Path(shutil.copytree(tiny_run, tmp_path / "source"))
    (source / "chat_template.jinja").write_text(PLAIN.source)
    minilm.prune(source, pruned, sparsity=0.5, method="2:4", device="cpu", cache=cache)
    finetune(
        pruned,
        data=str(text_file),
        run_dir=adapter,
        lora_rank=2,
        settings=SETTINGS,
        cache=cache,
    )
    merge(adapter, merged, device="cpu", cache=cache)
    minilm.quantize(merged, quantized, format="int8", device="cpu", cache=cache)
    minilm.share(merged, out=shared, layers=1, device="cpu", cache=cache)
    for run in (pruned, adapter, merged, quantized, shared):
        assert minilm.inspect(run).verified, run
        assert (run / "chat_template.jinja").read_text() == PLAIN.source
    losses = {
        run.name: evaluate(run, device="cpu", dtype="float32").loss for run in (pruned, merged)
    }
    assert losses["m"] < losses["p"]
    weight = load(quantized, trainable=True).model.blocks[0].attention.query
    assert isinstance(weight, QuantizedLinear)
    zeros = (weight.dequantized().view(-1, 4) == 0).sum(1)
    assert bool((zeros >= 2).all())  # of every four, two at least
    tools = [each["tool"] for each in run_files.read_record(quantized / "config.json").transforms]
    assert tools == ["prune", "lora", "merge", "quantize"]
    pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    minilm.convert(quantized, "gguf", tmp_path / "model.gguf", gguf_format="q8_0")
    report = minilm.inspect(tmp_path / "model.gguf")
    assert report.verified
    assert report.parameters.total == minilm.inspect(tiny_run).parameters.total


@pytest.mark.parametrize("format", ["nf4, double", "int8"])
def test_an_adapter_on_a_quantized_base(
    format: str, wide_run: Path, tmp_path: Path, text_file: Path, cache: Path
) -> None:
    format, _, double = format.partition(", ")

    def go(name: str, **settings: float) -> Path:
        finetune(
            wide_run,
            data=str(text_file),
            run_dir=tmp_path / name,
            lora_rank=2,
            quantize_base=format,
            double_quantization=bool(double),
            settings=SETTINGS | settings,
            cache=cache,
        )
        return tmp_path / name

    run = go("whole")
    report = minilm.inspect(run)
    assert report.verified
    total = minilm.inspect(wide_run).parameters.total
    assert report.parameters.total == total + report.parameters.trainable
    assert report.quantization is not None
    summary = json.loads((run / "summary.json").read_text())
    assert summary["parameters"] == report.parameters.total
    assert summary["trainable"] == report.parameters.trainable
    note = f"that minilm convert {run / 'base'} --to huggingface writes"
    assert any(note in each for each in report.notes)
    assert not any(
        p.requires_grad and p.dtype != torch.float32
        for p in load(run, trainable=True).model.parameters()
    )
    before, after = evaluate(run / "base", str(text_file)), evaluate(run, str(text_file))
    assert after.loss < before.loss
    # The merged weights are those of the dequantized base: the adapter never saw others.
    merge(run, tmp_path / "merged", device="cpu", cache=cache)
    torch.testing.assert_close(logits(tmp_path / "merged"), logits(run), rtol=2e-2, atol=2e-2)
    assert minilm.inspect(tmp_path / "merged").verified
    stopped = go("stopped", max_seconds=1e-6)
    resume(stopped, settings={"max_seconds": 1e9}, cache=cache)
    name = f"{run_files.ADAPTER}/{run_files.ADAPTER_WEIGHTS}"
    first, second = (load(each).model.state_dict() for each in (run, stopped))
    assert (stopped / name).is_file()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_what_does_not_go_together_is_one_line(
    tiny_run: Path, tmp_path: Path, text_file: Path, cache: Path
) -> None:
    options = {"data": str(text_file), "run_dir": tmp_path / "run", "cache": cache}
    with pytest.raises(ConfigError, match="quantize_base: nf4 without lora_rank"):
        finetune(tiny_run, quantize_base="nf4", **options)
    minilm.quantize(tiny_run, tmp_path / "int8", format="int8", device="cpu", cache=cache)
    with pytest.raises(InputError, match="a quantized model, expected one in float"):
        finetune(tmp_path / "int8", **options)
    with pytest.raises(InputError, match="quantized already"):
        finetune(tmp_path / "int8", lora_rank=2, quantize_base="nf4", **options)
    with pytest.raises(InputError, match="a quantized model"):
        minilm.prune(tmp_path / "int8", tmp_path / "out", sparsity=0.5, method="magnitude")
    finetune(tmp_path / "int8", lora_rank=2, settings=SETTINGS, **options)
    assert minilm.inspect(tmp_path / "run").verified
    with pytest.raises(InputError, match="an adapter"):
        minilm.prune(tmp_path / "run", tmp_path / "out", sparsity=0.5, method="magnitude")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sharing", ["group", "cycle"])
def test_a_quantized_model_with_shared_layers_is_exported_as_it_computes(
    sharing: Any, tmp_path: Path, cache: Path, text_file: Path
) -> None:
    model = {"num_layers": 4, "shared_layers": 2, "sharing": sharing}
    deep = train_tiny(tmp_path / "deep", text_file, cache, model)
    minilm.quantize(deep, tmp_path / "q", format="int8", device="cpu", cache=cache)
    with pytest.raises(InputError, match="layers that share blocks"):
        minilm.quantize(deep, tmp_path / "c", format="int8", calibrate=str(text_file), cache=cache)
    pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    minilm.convert(tmp_path / "q", "gguf", tmp_path / "q.gguf", gguf_format="f32")
    minilm.convert(tmp_path / "q.gguf", "minilm", tmp_path / "back")
    torch.testing.assert_close(
        logits(tmp_path / "back"), logits(tmp_path / "q"), rtol=2e-2, atol=2e-2
    )


def test_widths_that_no_kernel_takes_run_all_the_same(
    tmp_path: Path, cache: Path, text_file: Path
) -> None:
    model = {"d_model": 20, "num_heads": 2, "d_feed_forward": 30}
    run = train_tiny(tmp_path / "run", text_file, cache, model)
    minilm.quantize(run, tmp_path / "q", format="int8", device="cpu", cache=cache)
    loaded, tokenizer = load(tmp_path / "q")
    assert minilm.generate(loaded, tokenizer, "the", max_new_tokens=4)


def test_what_was_pruned_is_on_record_after_training_and_an_adapter_is_not_held(
    tiny_run: Path, tmp_path: Path, cache: Path, text_file: Path
) -> None:
    pruned, tuned, adapter = (tmp_path / name for name in ("pruned", "tuned", "adapter"))
    minilm.prune(tiny_run, pruned, sparsity=0.5, method="magnitude", device="cpu", cache=cache)
    options = {"data": str(text_file), "cache": cache}
    finetune(pruned, run_dir=tuned, settings=SETTINGS | {"hold_zeros": True}, **options)
    finetune(
        tuned, run_dir=adapter, lora_rank=2, settings=SETTINGS | {"hold_zeros": True}, **options
    )
    trained = load(adapter, trainable=True).model
    assert all(
        bool(p.any()) for name, p in trained.named_parameters() if name.endswith("lora_B.weight")
    )
    merge(adapter, tmp_path / "merged", device="cpu", cache=cache)
    tools = [
        t["tool"] for t in run_files.read_record(tmp_path / "merged" / "config.json").transforms
    ]
    assert tools == ["prune", "lora", "merge"]
    for name, p in load(pruned).model.named_parameters():
        if "blocks" in name and p.ndim == 2:
            assert bool((load(tmp_path / "merged").model.get_parameter(name)[p == 0] == 0).all()), (
                name
            )
