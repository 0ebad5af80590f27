"""Dory as transformers saves it: nGPT's vectors of length 1, and layers in the middle that run several times.

Norms have no gains; queries, gates, feed-forwards, residuals and logits have scales instead. Each run of a
layer has a cache of its own, unless the last one's serves all. A config.json lists attention and feed-forward
as two layers, and so do the names of NVIDIA's files, which `minilm/inspection/names.py` reads. Names, shapes
and defaults: huggingface/transformers `models/dory`, and `conversion_mapping.py` for the names in files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from minilm.architectures.building_blocks import (
    Heads,
    L,
    V,
    d,
    f,
    gated_feed_forward,
    layer_kinds,
    linear,
    read_heads,
    separate_attention,
    window_size,
)
from minilm.architectures.config_fields import choice, flag, layers, size, whole_number
from minilm.architectures.decoder import Defaults, decoder
from minilm.architectures.moe import group_of
from minilm.architectures.recurrent import within
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, ZERO, Polynomial, as_polynomial

Config = Mapping[str, Any]
_DEFAULTS = Defaults(131072, 36, (2560, 16, 4, 256), 7168, 8192, window=1024)
_KINDS = ("sliding_attention", "full_attention")
_BLOCK = "backbone.layers.{i}"


class _Depth(NamedTuple):
    """The kind of each layer, the ones that run ``loops`` times, and the fields that a decoder reads."""

    kinds: Sequence[str]
    looped: range
    loops: int
    config: Config


def layout(config: Config) -> Layout:
    """The tensors of DoryForCausalLM for a config.json."""
    heads = read_heads(config, defaults=_DEFAULTS.heads)
    depth = _depth(config)
    num_layers = len(depth.kinds)
    once = group_of([i for i in range(num_layers) if i not in depth.looped], num_layers)
    looped = group_of(depth.looped, num_layers)
    block = _layer(
        heads, bias=flag(config, "attention_bias", False), mlp_bias=flag(config, "mlp_bias", False)
    )
    return decoder(
        depth.config,
        _DEFAULTS,
        heads,
        *within(once, *block),
        *(replace(each, runs=depth.loops) for each in within(looped, *block)),
        _scale("lm_head.logit_scale", V, components.LM_HEAD, repeat=ONE),
        attention=_attention(config, heads, depth),
        table="backbone.embeddings",
        final_norm="",
    )


def _depth(config: Config) -> _Depth:
    listed = config.get("layer_types")
    # Attention and feed-forward of each layer are then listed as two.
    halves = 2 if isinstance(listed, list) and "mlp" in listed else 1
    num_layers = layers(config, "num_hidden_layers", _DEFAULTS.layers) // halves
    before = whole_number(config, "n_input_layers", 8) // halves
    behind = whole_number(config, "n_output_layers", 8) // halves
    between = whole_number(config, "n_recurrent_layers", halves * (num_layers - before - behind))
    if before + between // halves + behind != num_layers:
        raise ConfigError(
            "config.json: num_hidden_layers",
            f"{num_layers * halves}",
            "the sum of n_input_layers, n_recurrent_layers and n_output_layers",
        )
    own = {"layer_types": listed[::halves]} if isinstance(listed, list) else {}
    kinds = layer_kinds(own, "layer_types", num_layers, _KINDS, lambda i: _KINDS[(i + 1) % 4 == 0])
    return _Depth(
        kinds,
        range(before, num_layers - behind),
        size(config, "n_recurrent_loops", 2),
        {**config, "num_hidden_layers": num_layers},
    )


def _attention(config: Config, heads: Heads, depth: _Depth) -> list[AttentionSpec]:
    """Of either kind the layers that run once, and those that run again."""
    windows = (window_size(config, _DEFAULTS.window), 0)
    modes = ("per_loop", "last_loop")
    mode = choice(config, "recurrent_kv_cache_mode", modes[0], modes)
    specs = []
    for kind, window in zip(_KINDS, windows, strict=True):
        first = depth.kinds.count(kind)
        again = (depth.loops - 1) * depth.kinds[depth.looped.start : depth.looped.stop].count(kind)
        if first:
            repeat = L if first == len(depth.kinds) else as_polynomial(first)
            specs.append(heads.attention(layers=repeat, window=window))
        if again:
            more = heads.attention(layers=as_polynomial(again), window=window)
            specs.append(more if mode == modes[0] else replace(more, cache=ZERO))
    return specs


def _scale(name: str, width: Polynomial, component: str, repeat: Polynomial = L) -> Tensor:
    return Tensor(name, (width,), component, Role.SCALED, repeat)


def _layer(heads: Heads, *, bias: bool, mlp_bias: bool) -> Tensors:
    attention, feed_forward = f"{_BLOCK}.self_attn", f"{_BLOCK}.mlp"
    gate, streams = components.ATTENTION_GATE, components.RESIDUAL_STREAMS
    return (
        *separate_attention(attention, heads, qkv_bias=bias, output_bias=bias),
        *linear(f"{attention}.g_proj", heads.queries, d, gate),
        _scale(f"{attention}.sqk", heads.queries, components.ATTENTION_QK_NORM),
        _scale(f"{attention}.s_gate", heads.queries, gate),
        *gated_feed_forward(feed_forward, bias=mlp_bias),
        _scale(f"{feed_forward}.suv_gate", f, components.FEED_FORWARD_GATE),
        _scale(f"{feed_forward}.suv_up", f, components.FEED_FORWARD_UP),
        _scale(f"{_BLOCK}.lambda_1", d, streams),
        _scale(f"{_BLOCK}.lambda_2", d, streams),
    )
