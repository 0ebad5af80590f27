"""Attention maps against what the attention of the model computes, and in the file of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from minilm.config import ModelConfig
from minilm.generation import attention_maps as maps
from minilm.model.attention import Attention
from minilm.model.transformer import Transformer
from minilm.runs.attention_maps import (
    LEVELS,
    MAX_MAPS,
    MAX_TOKENS,
    read_attention_maps,
    write_attention_maps,
)
from minilm.text.tokenizer_file import load_tokenizer

COMMON = {"vocab_size": 50, "context_length": 60, "num_layers": 2, "d_model": 24, "num_heads": 4}
MODELS: dict[str, dict[str, Any]] = {
    "rope": {},
    "grouped": {"num_kv_heads": 2, "qk_norm": True, "norm": "rmsnorm", "norm_bias": False},
    "learned": {"position": "learned", "qkv_bias": False},
    "window": {"sliding_window": 5},
    "shared": {"num_layers": 4, "shared_layers": 2},
}


def model_of(**fields: Any) -> Transformer:
    generator = torch.Generator().manual_seed(0)
    model = Transformer(ModelConfig(**(COMMON | fields)), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / 3)
    return model


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("name", list(MODELS))
def test_the_weights_are_those_that_mix_the_values(name: str, documents: bool) -> None:
    model = model_of(**MODELS[name])
    tokens = torch.arange(20)[None] % 50
    row = [tokens]
    if documents:
        row.append(torch.cat([torch.arange(8), torch.arange(12)])[None])
    seen: list[tuple[Attention, Tensor, Tensor]] = []

    def keep(module: nn.Module, arguments: Any, output: Tensor) -> None:
        assert isinstance(module, Attention)
        seen.append((module, arguments[0], output))

    for block in model.blocks:
        block.get_submodule("attention").register_forward_hook(keep)
    weights = maps.attention_weights(model, *row)
    assert len(weights) == len(seen) == model.config.num_layers
    assert model.training
    for own, (attention, x, output) in zip(weights, seen, strict=True):
        value = rearrange(attention.value(x), "1 t (g k) -> g t k", g=attention.num_kv_heads)
        value = repeat(value, "g t k -> (g n) t k", n=4 // attention.num_kv_heads)
        mixed = attention.output(rearrange(own @ value, "h t k -> 1 t (h k)"))
        torch.testing.assert_close(mixed, output, rtol=1e-4, atol=1e-5)
        assert bool(own[:, 9, 7].eq(0).all()) == documents  # of another document


def test_a_run_has_the_maps_of_its_weights(tiny_run: Path, tmp_path: Path) -> None:
    attention = read_attention_maps(tiny_run)
    assert attention is not None
    assert attention.layers == (0, 1)
    assert len("".join(attention.tokens)) == len(attention.tokens) == 16
    assert all(len(heads) == 2 for heads in attention.maps)
    row = [LEVELS.index(letter) / 63 for letter in attention.maps[1][1][-16:]]
    assert sum(share**2 for share in row) == pytest.approx(1, abs=0.15)
    # Anything else is as if there were none.
    path = tmp_path / "attention.json"
    value = json.loads((tiny_run / "attention.json").read_text())
    path.write_text(json.dumps(value))
    assert read_attention_maps(tmp_path) == attention
    for bad in (
        {"step": -1},
        {"tokens": []},
        {"tokens": ["x"] * 15},
        {"layers": [0]},
        {"layers": [0, True]},
        {"maps": [["<" * 136] * 2] * 2},
        {"maps": [value["maps"][0], value["maps"][1][:1]]},
        {"maps": [[], []]},
        {"maps": None},
    ):
        path.write_text(json.dumps(value | bad))
        assert read_attention_maps(tmp_path) is None, bad
    path.write_text("[")
    assert read_attention_maps(tmp_path) is None


def test_of_many_layers_and_heads_some_are_kept(tiny_run: Path, tmp_path: Path) -> None:
    model = model_of(num_layers=30, num_heads=12, vocab_size=256, d_model=24)
    tokenizer = load_tokenizer(tiny_run / "tokenizer.json")
    attention = maps.attention_maps(model, tokenizer, [np.arange(60)[None]], 7)
    assert len(attention.tokens) == MAX_TOKENS
    assert len(attention.layers) * 12 <= MAX_MAPS
    assert (attention.layers[0], attention.layers[-1]) == (0, 29)
    write_attention_maps(tmp_path, attention)
    assert (tmp_path / "attention.json").stat().st_size < 250_000
    assert read_attention_maps(tmp_path) == attention
