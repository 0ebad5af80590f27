"""Arcee's AFM as transformers stores it: Llama with squared ReLU and no gate.

Names, shapes and defaults: huggingface/transformers `models/arcee/configuration_arcee.py` and
`modeling_arcee.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import f, feed_forward, separate_attention
from minilm.architectures.config_fields import flag
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(
    vocabulary=32000, layers=32, heads=(2560, 32, None, None), feed_forward=18432, context=4096
)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of ArceeForCausalLM for a config.json."""
    heads, _ = heads_and_layers(config, _DEFAULTS)
    bias = flag(config, "attention_bias", False)
    mlp_bias = flag(config, "mlp_bias", False)
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *feed_forward(f"{MLP}.up_proj", f"{MLP}.down_proj", f, bias=mlp_bias),
    )
