"""merge(): the run that an adapter and its base become."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from minilm.checkpoint import load, save_weights
from minilm.cli.finetune import main
from minilm.config.lora import LoraConfig
from minilm.errors import InputError
from minilm.generation.decoder import ModelDecoder, make_decoder
from minilm.inspection.inspector import inspect
from minilm.interop.convert import convert
from minilm.operations.merge import merge
from minilm.operations.prune import STRUCTURED, Method, prune
from minilm.operations.share import share
from tests.interop.shapes import SHAPES, make_run
from tests.transforms.adapters import ALL, make_adapter_run

TOKENS = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", ["llama", "gpt2-tied"])
def test_the_merged_run_is_the_adapter(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = make_run(tmp_path / "base", SHAPES[name][1])
    table = load(base).model.embedding.token.weight
    adapted = make_adapter_run(base, tmp_path / "run", LoraConfig(rank=3, targets=ALL))
    caplog.set_level(logging.INFO, "minilm")
    result = merge(tmp_path / "run", tmp_path / "out", device="cpu")
    assert caplog.messages[-2:] == [
        f"merging run into {base}: the adapter is measured first",
        "measuring the merged model",
    ]
    model = load(tmp_path / "out").model
    scale = adapted(TOKENS).abs().max()
    torch.testing.assert_close(model(TOKENS) / scale, adapted(TOKENS) / scale, atol=1e-5, rtol=0)
    assert torch.equal(model.embedding.token.weight, table)
    assert not isinstance(make_decoder(model), ModelDecoder)
    report = inspect(tmp_path / "out")
    assert report.verified
    assert result.comparison.after.parameters == report.parameters.total
    assert result.comparison.before.parameters == inspect(tmp_path / "run").parameters.total
    tools = [
        t["tool"] for t in json.loads((tmp_path / "out/config.json").read_text())["transforms"]
    ]
    assert tools == ["lora", "merge"]
    convert(tmp_path / "out", "huggingface", tmp_path / "hf")
    assert inspect(tmp_path / "hf").parameters.total == report.parameters.total


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_it_is_nearer_to_the_adapter_than_to_the_base(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    base = make_run(tmp_path / "base", SHAPES["llama"][1], dtype)
    adapted = make_adapter_run(base, tmp_path / "run", LoraConfig(rank=3))
    result = merge(tmp_path / "run", tmp_path / "out", device="cpu")
    assert result.dtype == str(dtype).removeprefix("torch.")
    merged, of_base = load(tmp_path / "out").model(TOKENS), load(base).model(TOKENS)
    to_adapter = (merged - adapted(TOKENS)).norm()
    assert to_adapter < 0.1 * (merged - of_base).norm()


@pytest.mark.parametrize("method", sorted({*get_args(Method)} - {*STRUCTURED}))
def test_a_pruned_base_stays_pruned(tmp_path: Path, method: str) -> None:
    base = make_run(tmp_path / "base", SHAPES["llama"][1])
    model = load(base).model
    zeros = torch.rand(model.blocks[0].attention.query.weight.shape) < 0.5
    model.blocks[0].attention.query.weight.masked_fill_(zeros, 0.0)
    save_weights(base / "model.safetensors", model, {})
    record = json.loads((base / "config.json").read_text())
    record["transforms"] = [{"tool": "prune", "method": method, "sparsity": 0.5}]
    (base / "config.json").write_text(json.dumps(record))
    make_adapter_run(base, tmp_path / "run", LoraConfig(rank=3))
    merge(tmp_path / "run", tmp_path / "out", device="cpu")
    weight = load(tmp_path / "out").model.blocks[0].attention.query.weight
    assert torch.equal(weight == 0, zeros)
    assert not torch.equal(weight, model.blocks[0].attention.query.weight)


def test_two_adapters_are_added_to_their_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_run(tmp_path / "base", SHAPES["llama"][1])
    for name, targets in (("a", ("query", "up")), ("b", ("query", "lm_head"))):
        make_adapter_run(base, tmp_path / name, LoraConfig(rank=2, targets=targets))
    a, b, out = (str(tmp_path / name) for name in ("a", "b", "out"))
    assert main(["--merge", a, b, "--out", out]) == 0
    assert main([a, b, "--data", "x"]) == 2
    assert f"CHECKPOINT: {a} and {b}, without --merge, expected one" in capsys.readouterr().err
    merged, w = load(out).model, load(base).model.blocks[1].attention.query.weight
    for name in ("a", "b"):
        module = load(tmp_path / name).model.blocks[1].attention.query
        w = w + 8 * module.lora_B.weight @ module.lora_A.weight
    torch.testing.assert_close(merged.blocks[1].attention.query.weight, w, atol=1e-5, rtol=1e-5)
    together = load(a, adapters=[b]).model
    torch.testing.assert_close(merged(TOKENS), together(TOKENS), atol=1e-3, rtol=1e-3)
    record = json.loads((tmp_path / "out/config.json").read_text())
    assert [t["tool"] for t in record["transforms"]] == ["lora", "lora", "merge"]
    assert inspect(out).verified
    make_run(tmp_path / "other", SHAPES["llama"][1] | {"vocab_size": 300})
    make_adapter_run(tmp_path / "other", tmp_path / "c", LoraConfig(rank=2))
    with pytest.raises(InputError, match="adapters are for one base"):
        merge([a, tmp_path / "c"], tmp_path / "no")


def test_each_tensor_keeps_its_dtype(tmp_path: Path) -> None:
    """As of an imported model whose norms are in float32 and whose matrices are not."""
    base = make_run(tmp_path / "base", SHAPES["llama"][1], torch.bfloat16)
    weights = load_file(base / "model.safetensors")
    mixed = {name: t.float() if "norm" in name else t for name, t in weights.items()}
    save_file(mixed, base / "model.safetensors")
    make_adapter_run(base, tmp_path / "run", LoraConfig(rank=2))
    result = merge(tmp_path / "run", tmp_path / "merged", device="cpu")
    assert result.dtype == "bfloat16 and float32"
    prune(base, tmp_path / "pruned", sparsity=0.5, method="magnitude", device="cpu")
    share(base, tmp_path / "shared", layers=1, device="cpu")
    for name in ("merged", "pruned", "shared"):
        stored = load_file(tmp_path / name / "model.safetensors")
        assert {n: t.dtype for n, t in stored.items()} == {n: mixed[n].dtype for n in stored}


def test_windows_that_were_shorter_leave_the_context_of_the_base(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["llama"][1])
    make_adapter_run(base, tmp_path / "run", LoraConfig(rank=2))
    path = tmp_path / "run/config.json"
    record = json.loads(path.read_text())
    longest = record["model"]["context_length"]
    record["model"]["context_length"] = longest // 2
    path.write_text(json.dumps(record))
    merge(tmp_path / "run", tmp_path / "out", device="cpu")
    assert load(tmp_path / "out").model.config.context_length == longest


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["llama"][1])
    make_adapter_run(base, tmp_path / "run", LoraConfig(rank=2))
    with pytest.raises(InputError, match="a whole model, expected a run that is an adapter"):
        merge(base, tmp_path / "out")
    with pytest.raises(InputError, match="something that exists"):
        merge(tmp_path / "run", base)
    with pytest.raises(InputError, match="no such folder"):
        merge(tmp_path / "run", tmp_path / "no" / "out")
    assert not (tmp_path / "out").exists()
