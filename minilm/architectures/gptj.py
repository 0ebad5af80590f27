"""GPT-J as transformers stores it: parallel blocks with one norm, RoPE, an LM head with a bias.

Names, shapes and defaults: huggingface/transformers `models/gptj/configuration_gptj.py` and
`modeling_gptj.py`. Attention has no bias, the feed-forward has. Old files hold each causal mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    equal_heads,
    feed_forward,
    feed_forward_width,
    norm,
    separate_attention,
)
from minilm.architectures.config_fields import size_or_null
from minilm.architectures.decoder import Defaults, decoder, gpt_fields
from minilm.ledger import components
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(50400, 28, (4096, 16, None, None))


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of GPTJForCausalLM for a config.json."""
    fields = gpt_fields(config)
    heads = equal_heads(
        config, _DEFAULTS.heads, width=fields["hidden_size"], heads=fields["num_attention_heads"]
    )
    inner = size_or_null(config, "n_inner", 4 * heads.symbols["d"])
    hidden = feed_forward_width(inner, heads.symbols["d"])
    block = "transformer.h.{i}"
    result = decoder(
        config,
        _DEFAULTS,
        heads,
        *norm(f"{block}.ln_1", components.ATTENTION_NORM, bias=True),
        *separate_attention(f"{block}.attn", heads, output="out_proj"),
        *feed_forward(f"{block}.mlp.fc_in", f"{block}.mlp.fc_out", hidden, bias=True),
        symbols={"f": inner},
        table="transformer.wte",
        final_norm="transformer.ln_f",
        norm_bias=True,
        head_bias=True,
        fields=fields,
    )
    return replace(result, ignored=(f"{block}.attn.bias", f"{block}.attn.masked_bias"))
