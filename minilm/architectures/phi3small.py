"""Phi-3-small: LayerNorm and every bias, fused queries, keys and values, fused gate and up, a tied head.

All layers cache every token; those with block-sparse attention see fewer, which is not told.
Names and shapes: ml-explore/mlx-lm `models/phi3small.py`, vllm-project/vllm `models/phi3_small.py`;
defaults: microsoft/Phi-3-small-8k-instruct `configuration_phi3_small.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import d, f, fused_attention, linear
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(100352, 32, (4096, 32, 8, None), 14336, 8192, tied=True)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Phi3SmallForCausalLM for a config.json."""
    heads, _ = heads_and_layers(config, _DEFAULTS, head_dim=None)
    layout = decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(bias=True),
        *fused_attention(f"{ATTENTION}.query_key_value", f"{ATTENTION}.dense", heads, bias=True),
        *linear(f"{MLP}.up_proj", 2 * f, d, components.FEED_FORWARD_GATE_UP, bias=True),
        *linear(f"{MLP}.down_proj", d, f, components.FEED_FORWARD_DOWN, bias=True),
        final_norm="model.final_layernorm",
        norm_bias=True,
        fields={"intermediate_size": "ff_intermediate_size"},
    )
    return replace(layout, ignored=(f"{ATTENTION}.rotary_emb.inv_freq",))
