"""Dory's config.json and files with attention and feed-forward as two layers, and what its cache holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import minilm
from minilm.architectures import layout_of
from minilm.costs.memory import kv_cache_elements
from minilm.errors import ConfigError

SMALL: dict[str, Any] = {
    "model_type": "dory",
    "vocab_size": 19,
    "hidden_size": 8,
    "intermediate_size": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "num_hidden_layers": 4,
    "n_input_layers": 1,
    "n_output_layers": 1,
}
IN_HALVES = SMALL | {
    "num_hidden_layers": 8,
    "n_input_layers": 2,
    "n_output_layers": 2,
    "layer_types": ["sliding_attention", "mlp"] * 3 + ["full_attention", "mlp"],
}


def in_halves(name: str) -> str:
    """The name in NVIDIA's files."""
    if ".layers." not in name:
        return name
    body, rest = name.split(".layers.")
    layer, part, *more = rest.split(".")
    own = {"lambda_1": "attn_alpha", "lambda_2": "mlp_alpha"}.get(part, "mixer")
    half = 2 * int(layer) + (part in ("mlp", "lambda_2"))
    return ".".join((body, "layers", str(half), own, *more))


@pytest.mark.parametrize("renamed", [str, in_halves])
def test_files_of_both_kinds_are_the_declared_tensors(renamed: Any, tmp_path: Path) -> None:
    layout = layout_of(IN_HALVES)
    assert layout == layout_of(SMALL)
    tensors = {renamed(t.name): np.ones(t.shape, np.float32) for t in layout.named_tensors()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(IN_HALVES), encoding="utf-8")
    report = minilm.inspect(tmp_path)
    assert report.verified, report.mismatches
    assert report.parameters.total == layout.count() == sum(map(np.size, tensors.values()))


def test_every_loop_is_cached_unless_the_last_serves_all() -> None:
    def cached(**fields: Any) -> int:
        return kv_cache_elements(layout_of(SMALL | fields), context=3, batch=1)

    token = 3 * 2 * 4  # keys and values of one layer
    assert cached() == (1 + 2 * 2 + 1) * token
    assert cached(n_recurrent_loops=5) == (1 + 5 * 2 + 1) * token
    assert cached(n_recurrent_loops=5, recurrent_kv_cache_mode="last_loop") == 4 * token


def test_by_default_twenty_layers_of_36_run_twice() -> None:
    layout = layout_of({"model_type": "dory"})
    caches = {kind.window: 0 for kind in layout.attention}
    for kind in layout.attention:
        caches[kind.window] += kind.layers.value(layout.symbols)
    assert caches == {1024: 27 + 15, 0: 9 + 5}


@pytest.mark.parametrize("fields", [{"n_recurrent_layers": 1}, {"n_input_layers": 9}])
def test_layers_that_do_not_add_up_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: n"):
        layout_of(SMALL | fields)
