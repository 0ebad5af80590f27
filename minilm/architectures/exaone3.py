"""EXAONE 3 and 3.5 of remote code: Llama under GPT-2's names.

Names, shapes and defaults: LGAI-EXAONE/EXAONE-3.0-7.8B-Instruct `modeling_exaone.py` and
`configuration_exaone.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    gated_feed_forward,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import field_name, size
from minilm.architectures.decoder import Defaults, decoder, pre_norms
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(102400, 32, (2048, 32, None, None), tied=True)
_BLOCK = "transformer.h.{i}"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of ExaoneForCausalLM for a config.json."""
    heads = read_heads(config, defaults=_DEFAULTS.heads)
    attention = f"{_BLOCK}.attn.attention"
    layout = decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(f"{_BLOCK}.ln_1", f"{_BLOCK}.ln_2"),
        *separate_attention(attention, heads, output="out_proj"),
        *gated_feed_forward(f"{_BLOCK}.mlp", names=("c_fc_0", "c_fc_1", "c_proj")),
        symbols={"f": size(config, "intermediate_size", 4 * heads.symbols["d"])},
        table="transformer.wte",
        final_norm="transformer.ln_f",
        fields={"num_hidden_layers": field_name(config, "num_hidden_layers", "num_layers")},
    )
    return replace(layout, ignored=(f"{attention}.rotary.inv_freq",))
