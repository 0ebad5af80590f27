"""ZAYA1 as transformers stores it: convolved queries and keys, half of each value from the token before.

The router is a small network with a class for no expert at all, and hands its states to the next layer.
Both inputs of every residual sum have scales and biases. Names, shapes and defaults:
huggingface/transformers `models/zaya`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    E,
    Heads,
    L,
    attention_kinds,
    d,
    g,
    k,
    layer_kinds,
    linear,
    norm,
    window_size,
)
from minilm.architectures.config_fields import flag, size
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.moe import LayerGroup, group_of, read_experts, stacked_experts
from minilm.architectures.recurrent import within
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

_DEFAULTS = Defaults(
    262272, 40, (2048, 8, 2, 128), context=131072, tied=True, experts=(16, 1, 2048)
)
_KINDS = ("hybrid", "hybrid_sliding")
_HALF, _ROUTER = symbol("v"), symbol("r")


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of ZayaForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    kinds = layer_kinds(config, "layer_types", num_layers, _KINDS, lambda i: _KINDS[0])
    experts = read_experts(config, layers=num_layers, defaults=_DEFAULTS.experts)
    taps = size(config, "cca_time0", 2), size(config, "cca_time1", 2)
    symbols = {
        **experts,
        "v": max(1, heads.symbols["g"] * heads.symbols["k"] // 2),
        "r": size(config, "router_hidden_size", 256),
    }
    part, channels = components.RESIDUAL_STREAMS, heads.queries + heads.keys
    scales = [
        Tensor(f"{BLOCK}.post_{where}_residual_scale.{what}_{kind}", (d,), part, role, L)
        for where in ("attention", "mlp")
        for what in ("hidden_states", "residual")
        for kind, role in (("scale", Role.SCALED), ("bias", Role.ADDED))
    ]
    first = "model.input_hidden_states"
    classes = Tensor(f"{MLP}.gate.balancing_biases", (E + 1,), components.ROUTER, Role.ADDED, L)
    stacked = f"{MLP}.experts.gate_up_proj", f"{MLP}.experts.down_proj"
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *_attention(heads, channels, taps, bias=flag(config, "attention_bias", False)),
        *_router(num_layers),
        *stacked_experts(*stacked, LayerGroup()),
        *scales,
        symbols=symbols,
        attention=attention_kinds(
            heads, num_layers, kinds.count(_KINDS[1]), window_size(config, 0)
        ),
        state=L * (channels * (sum(taps) - 2) + _HALF),
        buffers=(classes,),
        before=(
            Tensor(f"{first}_scale", (d,), part, Role.SCALED),
            Tensor(f"{first}_bias", (d,), part, Role.ADDED),
        ),
        head_bias=flag(config, "lm_head_bias", False),
    )


def _attention(
    heads: Heads, channels: Polynomial, taps: tuple[int, int], *, bias: bool
) -> tuple[Tensor, ...]:
    prefix = f"{ATTENTION}.qkv_proj"
    value, part = components.ATTENTION_VALUE, components.CONVOLUTION

    def convolution(name: str, inputs: Polynomial, number: int) -> tuple[Tensor, ...]:
        full, shape = f"{prefix}.conv_qk_{name}", (channels, inputs, as_polynomial(number))
        return (
            Tensor(f"{full}.weight", shape, part, Role.MULTIPLIED, L),
            Tensor(f"{full}.bias", (channels,), part, Role.ADDED, L),
        )

    return (
        *linear(f"{prefix}.q_proj", heads.queries, d, components.ATTENTION_QUERY, bias=bias),
        *linear(f"{prefix}.k_proj", heads.keys, d, components.ATTENTION_KEY, bias=bias),
        *linear(f"{prefix}.v_proj_current", _HALF, d, value, bias=bias),
        *linear(f"{prefix}.v_proj_delayed", _HALF, d, value, bias=bias),
        *convolution("depthwise", ONE, taps[0]),
        *convolution("grouped", k, taps[1]),
        Tensor(f"{ATTENTION}.qk_norm.temp", (g,), components.ATTENTION_QK_NORM, Role.SCALED, L),
        *linear(f"{ATTENTION}.o_proj", d, heads.queries, components.ATTENTION_OUTPUT, bias=bias),
    )


def _router(num_layers: int) -> tuple[Tensor, ...]:
    """All but the first layer add the states of the router before."""
    prefix, part = f"{MLP}.gate", components.ROUTER
    scale = Tensor(f"{prefix}.router_states_scale", (_ROUTER,), part, Role.SCALED)
    return (
        *linear(f"{prefix}.down_proj", _ROUTER, d, part, bias=True),
        *within(group_of(range(1, num_layers), num_layers), scale),
        *norm(f"{prefix}.router_mlp.norm", part, width=_ROUTER),
        *linear(f"{prefix}.router_mlp.fc1", _ROUTER, _ROUTER, part, bias=True),
        *linear(f"{prefix}.router_mlp.fc2", _ROUTER, _ROUTER, part, bias=True),
        *linear(f"{prefix}.router_mlp.out_proj", E + 1, _ROUTER, part),
    )
