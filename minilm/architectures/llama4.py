"""Llama 4's language model as transformers stores it: stacked experts as (in, out) beside a shared one.

All layers have experts, or every few. Three layers in four see only their chunk of the text, which is
counted as a window of that size. Names, shapes and defaults: huggingface/transformers `models/llama4`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    attention_kinds,
    layer_kinds,
    m,
    separate_attention,
)
from minilm.architectures.config_fields import flag, layer_numbers, size, size_or_null
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.moe import (
    dense_feed_forward,
    read_experts,
    router,
    shared_expert,
    split_layers,
    stacked_experts,
)
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(
    202048, 48, (5120, 40, 8, 128), 16384, 131072, experts=(16, 1, 8192), window=8192
)
_KINDS = ("chunked_attention", "full_attention")


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Llama4ForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    split = split_layers(num_layers, _has_experts(config))
    symbols = dict(split.symbols)
    if split.dense:
        symbols["f"] = size(config, "intermediate_size_mlp", _DEFAULTS.feed_forward)
    if split.experts:
        symbols |= read_experts(
            config,
            layers=split.expert_layers,
            total="num_local_experts",
            width="intermediate_size",
            defaults=_DEFAULTS.experts,
        )
    bias = flag(config, "attention_bias", False)
    mlp = f"{BLOCK}.feed_forward"
    kinds = layer_kinds(config, "layer_types", num_layers, _KINDS, _chunks(config))
    window = size_or_null(config, "attention_chunk_size", _DEFAULTS.window)
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *dense_feed_forward(mlp, split.dense),
        *router(f"{mlp}.router", split.experts),
        *stacked_experts(
            f"{mlp}.experts.gate_up_proj",
            f"{mlp}.experts.down_proj",
            split.experts,
            transposed=True,
        ),
        *shared_expert(f"{mlp}.shared_expert", split.experts, width=m),
        symbols=symbols,
        attention=attention_kinds(heads, num_layers, kinds.count(_KINDS[0]), window),
    )


def _has_experts(config: Mapping[str, Any]) -> Callable[[int], bool]:
    if config.get("moe_layers") is None:
        step = size(config, "interleave_moe_layer_step", 1)
        return lambda i: (i + 1) % step == 0
    chosen = layer_numbers(config, "moe_layers")
    return lambda i: i in chosen


def _chunks(config: Mapping[str, Any]) -> Callable[[int], str]:
    """Layers with RoPE see their chunk: all but every few, or as `no_rope_layers` lists with 1 for RoPE."""
    listed = config.get("no_rope_layers")
    if isinstance(listed, list) and listed:
        return lambda i: _KINDS[not (i < len(listed) and listed[i])]
    step = size(config, "no_rope_layer_interval", 4)
    return lambda i: _KINDS[(i + 1) % step == 0]
