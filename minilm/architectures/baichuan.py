"""Baichuan and Baichuan 2 (7B with RoPE, 13B with ALiBi): Llama with queries, keys and values fused.

Names, shapes and defaults: baichuan-inc/Baichuan2-13B-Chat `modeling_baichuan.py` and
`configuration_baichuan.py`; the head of Baichuan 2 normalises its rows when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    equal_heads,
    fused_attention,
    gated_feed_forward,
)
from minilm.architectures.config_fields import field_name
from minilm.architectures.decoder import ATTENTION, MLP, Defaults, decoder, pre_norms
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(64000, 40, (5120, 40, None, None), 13696, context=4096)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of BaichuanForCausalLM for a config.json."""
    heads = equal_heads(config, _DEFAULTS.heads)
    layout = decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *fused_attention(f"{ATTENTION}.W_pack", f"{ATTENTION}.o_proj", heads),
        *gated_feed_forward(MLP),
        fields={
            "max_position_embeddings": field_name(
                config, "max_position_embeddings", "model_max_length"
            )
        },
    )
    return replace(layout, ignored=(f"{ATTENTION}.rotary_emb.inv_freq",))
