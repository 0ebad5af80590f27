"""Laguna as transformers stores it: layers may differ in their number of heads, and attention has a gate.

The gate is one number a head, or as wide as the queries. The routers' bias is a parameter. Names,
shapes and defaults: huggingface/transformers `models/laguna`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    d,
    h,
    k,
    layer_kinds,
    linear,
    s,
    separate_attention,
    window_size,
)
from minilm.architectures.config_fields import flag, size
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
    query_key_norms,
)
from minilm.architectures.moe import (
    correction_bias,
    group_of,
    layers_by_value,
    shared_expert,
    sparse_feed_forward,
    sparse_layers,
    split_layers,
)
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Tensor
from minilm.ledger.symbols import Polynomial, as_polynomial

_DEFAULTS = Defaults(
    100352, 40, (2048, 48, 8, 128), 8192, 131072, experts=(256, 8, 512), window=512
)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of LagunaForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    split = split_layers(num_layers, sparse_layers(config, num_layers, lambda i: i > 0))
    sparse = sparse_feed_forward(config, MLP, split, _DEFAULTS.experts)
    symbols = sparse.symbols
    if split.experts:
        symbols["s"] = size(config, "shared_expert_intermediate_size", 512)
    numbers = _heads_of_layers(config, heads.symbols["h"], num_layers)
    slides = layer_kinds(
        config,
        "layer_types",
        num_layers,
        ("sliding_attention", "full_attention"),
        lambda i: "full_attention",
    )
    window = window_size(config, _DEFAULTS.window)
    tensors: list[Tensor] = []
    kinds: list[AttentionSpec] = []
    for number, chosen in sorted(layers_by_value(numbers).items()):
        count = h if number == heads.symbols["h"] else as_polynomial(number)
        own = heads if count == h else heads._replace(queries=count * k, keys=heads.keys)
        tensors += _attention(config, own, count, chosen, num_layers)
        for kind, span in (("sliding_attention", window), ("full_attention", 0)):
            group = group_of([i for i in chosen if slides[i] == kind], num_layers)
            if group:
                kinds.append(replace(own.attention(layers=group.repeat), window=span))
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *tensors,
        *query_key_norms(),
        *sparse.tensors,
        *correction_bias(f"{MLP}.experts.e_score_correction_bias", split.experts),
        *shared_expert(f"{MLP}.shared_expert", split.experts, width=s),
        symbols=symbols,
        attention=kinds,
    )


def _heads_of_layers(config: Mapping[str, Any], usual: int, num_layers: int) -> Sequence[int]:
    name = "num_attention_heads_per_layer"
    listed = config.get(name)
    if listed is None:
        return [usual] * num_layers
    if not isinstance(listed, list) or len(listed) != num_layers:
        raise ConfigError(f"config.json: {name}", shortened(listed), f"{num_layers} numbers")
    return [size({name: number}, name) for number in listed]


def _attention(
    config: Mapping[str, Any], heads: Heads, count: Polynomial, chosen: list[int], num_layers: int
) -> tuple[Tensor, ...]:
    bias = flag(config, "attention_bias", False)
    group = group_of(chosen, num_layers)
    assert group is not None
    repeat, layers = group.repeat, group.layers
    by_head = config.get("gating", True) in (True, "per-head", None)
    gate = count if by_head else heads.queries
    name, part = f"{ATTENTION}.g_proj", components.ATTENTION_GATE
    return (
        *separate_attention(
            ATTENTION, heads, qkv_bias=bias, output_bias=bias, repeat=repeat, layers=layers
        ),
        *linear(name, gate, d, part, repeat=repeat, layers=layers),
    )
