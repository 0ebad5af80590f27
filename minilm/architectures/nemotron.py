"""Nemotron-4, Minitron and Jais 2 as transformers stores them: LayerNorm, squared ReLU without a gate.

Names, shapes and defaults: huggingface/transformers `models/nemotron` and `models/jais2`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    feed_forward,
    feed_forward_width,
    separate_attention,
)
from minilm.architectures.config_fields import flag, size
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.ledger.layout import Layout

_DEFAULTS = {
    "nemotron": Defaults(256000, 32, (6144, 48, None, None), 24576, context=4096),
    "jais2": Defaults(150272, 32, (3328, 26, None, None), 26624, context=8192),
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Nemotron and Jais2ForCausalLM for a config.json."""
    defaults = _DEFAULTS[config["model_type"]]
    heads, _ = heads_and_layers(config, defaults)
    inner = size(config, "intermediate_size", defaults.feed_forward)
    biased = config["model_type"] == "jais2"
    bias = flag(config, "attention_bias", biased)
    return decoder(
        config,
        defaults,
        heads,
        *pre_norms(bias=True),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *feed_forward(
            f"{MLP}.up_proj",
            f"{MLP}.down_proj",
            feed_forward_width(inner, heads.symbols["d"]),
            bias=flag(config, "mlp_bias", biased),
        ),
        norm_bias=True,
    )
