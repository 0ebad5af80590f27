"""Grok-1 as converted for transformers: norms before and behind attention and experts, a tied head.

Names and shapes: hpcai-tech/grok-1 `modeling_grok1.py`, as vllm-project/vllm `models/grok1.py` and
erfanzar/EasyDeL `modeling_grok_1.py` have them; defaults, EasyDeL's `grok_1_configuration.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import separate_attention
from minilm.architectures.decoder import (
    BLOCK,
    Defaults,
    decoder,
    heads_and_layers,
    post_norms,
    pre_norms,
)
from minilm.architectures.moe import LayerGroup, read_experts, routed_experts
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(
    32000, 32, (4096, 32, 32, None), context=4096, tied=True, experts=(8, 2, 32768)
)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Grok1ModelForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS, head_dim=None)
    experts = read_experts(
        config, layers=num_layers, width="intermediate_size", defaults=_DEFAULTS.experts
    )
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(f"{BLOCK}.pre_attn_norm", f"{BLOCK}.pre_moe_norm"),
        *separate_attention(f"{BLOCK}.attn", heads),
        *post_norms(f"{BLOCK}.post_attn_norm", f"{BLOCK}.post_moe_norm"),
        *routed_experts(
            f"{BLOCK}.moe_block", LayerGroup(), names=("linear", "linear_v", "linear_1")
        ),
        symbols=experts,
    )
