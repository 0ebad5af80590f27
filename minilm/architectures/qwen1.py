"""Qwen (1): a bias of queries, keys and values, and a feed-forward of half the width that its field says.

Names, shapes and defaults: Qwen/Qwen-7B `modeling_qwen.py` and `configuration_qwen.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import d, gated_feed_forward, linear, read_heads
from minilm.architectures.config_fields import flag, size
from minilm.architectures.decoder import Defaults, decoder, pre_norms
from minilm.ledger import components
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(151936, 32, (4096, 32, None, 128), 22016, 8192)
_BLOCK = "transformer.h.{i}"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of QWenLMHeadModel for a config.json."""
    heads = read_heads(config, kv_heads=None, head_dim="kv_channels", defaults=_DEFAULTS.heads)
    bias = not flag(config, "no_bias", True)
    attention = f"{_BLOCK}.attn"
    width = 3 * heads.queries
    layout = decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(f"{_BLOCK}.ln_1", f"{_BLOCK}.ln_2"),
        *linear(f"{attention}.c_attn", width, d, components.ATTENTION_QUERY_KEY_VALUE, bias=True),
        *linear(f"{attention}.c_proj", d, heads.queries, components.ATTENTION_OUTPUT, bias=bias),
        *gated_feed_forward(f"{_BLOCK}.mlp", names=("w2", "w1", "c_proj"), bias=bias),
        symbols={"f": max(1, size(config, "intermediate_size", _DEFAULTS.feed_forward) // 2)},
        table="transformer.wte",
        final_norm="transformer.ln_f",
    )
    return replace(layout, ignored=(f"{attention}.rotary_emb.inv_freq",))
