"""Aria's language model as transformers stores it: stacked experts as (in, out) beside a shared one.

Names, shapes and defaults: huggingface/transformers `models/aria` (AriaTextForCausalLM).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import m, separate_attention
from minilm.architectures.config_fields import flag, size
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.moe import (
    LayerGroup,
    read_experts,
    router,
    shared_expert,
    stacked_experts,
)
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(32000, 32, (4096, 32, None, None), experts=(8, 2, 4096))


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of AriaTextForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    experts = read_experts(
        config,
        layers=num_layers,
        total="moe_num_experts",
        active="moe_topk",
        width="intermediate_size",
        defaults=_DEFAULTS.experts,
    )
    bias = flag(config, "attention_bias", False)
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *router(f"{MLP}.router", LayerGroup()),
        *stacked_experts(
            f"{MLP}.experts.fc1.weight", f"{MLP}.experts.fc2.weight", LayerGroup(), transposed=True
        ),
        *shared_expert(
            f"{MLP}.shared_experts",
            LayerGroup(),
            width=size(config, "moe_num_shared_experts", 2) * m,
            bias=flag(config, "mlp_bias", False),
        ),
        symbols=experts,
    )
