"""Heat maps of weights: the blocks against numpy, which matrices are drawn, and where their heads are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minilm.inspection.inspector import inspect_with_sources
from minilm.inspection.weight_maps import MAX_MAPS, SIDE, weight_maps
from minilm.values.matrix_blocks import ROWS_READ

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 24,
    "intermediate_size": 90,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "num_hidden_layers": 11,
    "vocab_size": 1000,
    "tie_word_embeddings": True,
}


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A Hugging Face folder of eleven layers."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    random = np.random.default_rng(0)
    report = inspect_with_sources(str(tmp_path / "config.json")).report
    tensors = {row.name: random.normal(size=row.shape).astype(np.float16) for row in report.tensors}
    tensors["model.layers.10.mlp.up_proj.weight"][0, 0] = np.nan
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def test_a_block_is_the_root_mean_square_of_its_values(llama: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    maps = weight_maps(inspect_with_sources(str(llama)))
    assert len(maps) <= MAX_MAPS
    layers = list(dict.fromkeys(each.layer for each in maps))
    assert layers[0] == "model.layers.0"
    assert layers[-2:] == ["model.layers.10", ""]
    assert layers == [*sorted(layers[:-1], key=lambda name: int(name.split(".")[-1])), ""]
    for each in maps:
        matrix = tensors[f"{each.layer}.{each.matrix}.weight".lstrip(".")].astype(np.float64)
        assert each.shape == matrix.shape
        assert max(each.rows, each.columns) <= SIDE
        tops = np.linspace(0, each.shape[0], each.rows + 1).astype(int)
        lefts = np.linspace(0, each.shape[1], each.columns + 1).astype(int)
        for number, value in enumerate(each.values):
            row, column = divmod(number, each.columns)
            block = matrix[tops[row] : tops[row + 1], lefts[column] : lefts[column + 1]]
            if len(block) > ROWS_READ:
                assert value == pytest.approx(np.sqrt(np.mean(block**2)), rel=0.6)
            elif np.isnan(block).any():
                assert value is None
            else:
                assert value == pytest.approx(np.sqrt(np.mean(block**2)))


def test_heads_have_blocks_of_their_own(llama: Path) -> None:
    maps = {each.matrix: each for each in weight_maps(inspect_with_sources(str(llama)))}
    heads = {name: (each.heads, each.across) for name, each in maps.items() if each.heads}
    assert heads == {
        "self_attn.q_proj": (6, False),
        "self_attn.k_proj": (2, False),
        "self_attn.v_proj": (2, False),
        "self_attn.o_proj": (6, True),
    }
    assert maps["self_attn.q_proj"].rows == 24
    assert maps["self_attn.o_proj"].columns == 24


def test_what_has_no_values_has_no_maps(llama: Path) -> None:
    assert weight_maps(inspect_with_sources("nano")) == ()
    tensors = {
        name: np.zeros_like(t, np.int8)
        for name, t in load_file(llama / "model.safetensors").items()
    }
    save_file(tensors, llama / "model.safetensors")
    assert weight_maps(inspect_with_sources(str(llama))) == ()
