"""EXAONE 3 and 3.5, of remote code and of transformers since 5.24: Llama under GPT-2's names.

Names, shapes and defaults: LGAI-EXAONE/EXAONE-3.0-7.8B-Instruct `modeling_exaone.py` and
`configuration_exaone.py`; huggingface/transformers `models/exaone`. The field of the number of layers tells
which of the two has written a config.json.
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
from minilm.architectures.config_fields import field_name, flag, size
from minilm.architectures.decoder import Defaults, decoder, pre_norms
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(102400, 32, (4096, 32, 8, None), 14336, 4096)
_OF_REMOTE_CODE = Defaults(102400, 32, (2048, 32, None, None), tied=True)
_BLOCK = "transformer.h.{i}"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of ExaoneForCausalLM for a config.json."""
    is_remote = config.get("num_layers") is not None
    defaults = _OF_REMOTE_CODE if is_remote else _DEFAULTS
    heads = read_heads(config, defaults=defaults.heads)
    width = 4 * heads.symbols["d"] if is_remote else defaults.feed_forward
    bias = flag(config, "attention_bias", False)
    attention = f"{_BLOCK}.attn.attention"
    layout = decoder(
        config,
        defaults,
        heads,
        *pre_norms(f"{_BLOCK}.ln_1", f"{_BLOCK}.ln_2"),
        *separate_attention(attention, heads, output="out_proj", qkv_bias=bias, output_bias=bias),
        *gated_feed_forward(
            f"{_BLOCK}.mlp",
            names=("c_fc_0", "c_fc_1", "c_proj"),
            bias=flag(config, "mlp_bias", False),
        ),
        symbols={"f": size(config, "intermediate_size", width)},
        table="transformer.wte",
        final_norm="transformer.ln_f",
        fields={"num_hidden_layers": field_name(config, "num_hidden_layers", "num_layers")},
    )
    return replace(layout, ignored=(f"{attention}.rotary.inv_freq",))
