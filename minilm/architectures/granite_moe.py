"""Granite with experts or sliding windows as transformers stores it: experts stacked, gate above up.

The shared expert is there where it has a width. In the types with windows three layers in four slide,
and every head has a sink. Names, shapes and defaults: huggingface/transformers
`models/{granitemoe,granitemoeshared,granitemoe_swa,granite_swa}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    L,
    attention_kinds,
    d,
    gated_feed_forward,
    h,
    linear,
    s,
    separate_attention,
    sliding_layers,
    window_size,
)
from minilm.architectures.config_fields import flag, whole_number
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.moe import LayerGroup, read_experts, router, stacked_experts
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor

_MOE = Defaults(32000, 32, (4096, 32, None, None), experts=(8, 2, 11008), window=128)
_DENSE = Defaults(100352, 24, (2560, 20, 4, None), 8192, 8192, tied=True, window=128)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of GraniteMoe{,Shared,SWA} and GraniteSWAForCausalLM for a config.json."""
    is_dense = config["model_type"] == "granite_swa"
    defaults = _DENSE if is_dense else _MOE
    heads, num_layers = heads_and_layers(config, defaults)
    slides = config["model_type"].endswith("_swa")
    sliding = sliding_layers(config, num_layers, lambda i: i % 4 != 0) if slides else 0
    bias = flag(config, "attention_bias", False)
    sinks = Tensor(f"{ATTENTION}.sinks", (h,), components.ATTENTION_SINKS, Role.SCALED, L)
    symbols: dict[str, int] = {}
    if is_dense:
        feed_forward = gated_feed_forward(MLP, bias=flag(config, "mlp_bias", False))
    else:
        symbols = read_experts(
            config,
            layers=num_layers,
            total="num_local_experts",
            width="intermediate_size",
            defaults=defaults.experts,
        )
        feed_forward = _experts(f"{BLOCK}.block_sparse_moe", is_fused=slides)
        shared = (
            0
            if config["model_type"] == "granitemoe"
            else whole_number(config, "shared_intermediate_size", 0)
        )
        if shared:
            symbols["s"] = shared
            feed_forward += _shared(f"{BLOCK}.shared_mlp")
    return decoder(
        config,
        defaults,
        heads,
        *pre_norms(),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *((sinks,) if slides else ()),
        *feed_forward,
        symbols=symbols,
        attention=attention_kinds(heads, num_layers, sliding, window_size(config, defaults.window)),
    )


def experts_and_shared(*, has_experts: bool) -> tuple[Tensor, ...]:
    """The feed-forward of the types without windows, with a shared part of the width s."""
    experts = _experts(f"{BLOCK}.block_sparse_moe", is_fused=False) if has_experts else ()
    return (*experts, *_shared(f"{BLOCK}.shared_mlp"))


def _experts(prefix: str, *, is_fused: bool) -> tuple[Tensor, ...]:
    """transformers renames the tensors of the earlier types when it writes them, and not the later's."""
    if is_fused:
        names = (f"{prefix}.experts.gate_up_proj", f"{prefix}.experts.down_proj")
        return (*router(f"{prefix}.router", LayerGroup()), *stacked_experts(*names, LayerGroup()))
    return (
        *router(f"{prefix}.router.layer", LayerGroup()),
        *stacked_experts(
            f"{prefix}.input_linear.weight", f"{prefix}.output_linear.weight", LayerGroup()
        ),
    )


def _shared(prefix: str) -> tuple[Tensor, ...]:
    return (
        *linear(f"{prefix}.input_linear", 2 * s, d, components.SHARED_EXPERT),
        *linear(f"{prefix}.output_linear", d, s, components.SHARED_EXPERT),
    )
