"""merge(): the run that an adapter and its base become."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from minilm.checkpoint import load, save_weights
from minilm.config.lora import LoraConfig
from minilm.errors import InputError
from minilm.generation.decoder import ModelDecoder, make_decoder
from minilm.inspection.inspector import inspect
from minilm.interop.convert import convert
from minilm.operations.merge import merge
from tests.interop.shapes import SHAPES, make_run
from tests.transforms.adapters import ALL, make_adapter_run

TOKENS = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", ["llama", "gpt2-tied"])
def test_the_merged_run_is_the_adapter(name: str, tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES[name][1])
    table = load(base).model.embedding.token.weight
    adapted = make_adapter_run(base, tmp_path / "run", LoraConfig(rank=3, targets=ALL))
    result = merge(tmp_path / "run", tmp_path / "out", device="cpu")
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


def test_a_pruned_base_stays_pruned(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["llama"][1])
    model = load(base).model
    zeros = torch.rand(model.blocks[0].attention.query.weight.shape) < 0.5
    model.blocks[0].attention.query.weight.masked_fill_(zeros, 0.0)
    save_weights(base / "model.safetensors", model, {})
    record = json.loads((base / "config.json").read_text())
    record["transforms"] = [{"tool": "prune", "method": "wanda", "sparsity": 0.5}]
    (base / "config.json").write_text(json.dumps(record))
    make_adapter_run(base, tmp_path / "run", LoraConfig(rank=3))
    merge(tmp_path / "run", tmp_path / "out", device="cpu")
    weight = load(tmp_path / "out").model.blocks[0].attention.query.weight
    assert torch.equal(weight == 0, zeros)
    assert not torch.equal(weight, model.blocks[0].attention.query.weight)


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
