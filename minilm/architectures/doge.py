"""Doge as transformers stores it: values decide a dynamic mask, residuals are scaled, experts are vectors.

With experts, a token's e of E rows of two tables are added to the feed-forward; 2*sqrt(E) keys choose
them. Names, shapes and defaults: huggingface/transformers `models/doge`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    E,
    L,
    attention_kinds,
    d,
    g,
    gated_feed_forward,
    linear,
    separate_attention,
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
    query_key_norms,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import symbol

x = symbol("x")

_DEFAULTS = Defaults(32768, 32, (1024, 8, None, None), 2048, 2048)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of DogeForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    bias = flag(config, "attention_bias", False)
    has_experts = flag(config, "is_moe", False)
    symbols: dict[str, int] = {}
    if has_experts:
        symbols["E"] = size(config, "num_experts", 16384)
        symbols["e"] = size(config, "num_experts_per_tok", 64)
        symbols["x"] = math.isqrt(symbols["E"])
    gate = components.ATTENTION_GATE
    residuals = (f"{BLOCK}.input_residual", f"{BLOCK}.post_attention_residual")
    part = components.RESIDUAL_STREAMS
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *(Tensor(name, (d,), part, Role.SCALED, L) for name in residuals),
        *pre_norms(),
        Tensor(f"{ATTENTION}.A", (g,), gate, Role.SCALED, L),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *linear(f"{ATTENTION}.dt_proj", g, heads.keys, gate, bias=bias),
        *query_key_norms(),
        *gated_feed_forward(MLP, bias=flag(config, "mlp_bias", False)),
        *(_experts() if has_experts else ()),
        symbols=symbols,
        attention=attention_kinds(heads, num_layers, num_layers, window_size(config, 0)),
    )


def _experts() -> tuple[Tensor, ...]:
    down, up = components.EXPERTS_DOWN, components.EXPERTS_UP
    return (
        *linear(f"{MLP}.router_gate", 2 * x, d, components.ROUTER),
        Tensor(f"{MLP}.down_embed.weight", (E, d), down, Role.MULTIPLIED, L, routed=True),
        Tensor(f"{MLP}.up_embed.weight", (E, d), up, Role.MULTIPLIED, L, routed=True),
    )
