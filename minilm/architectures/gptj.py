"""GPT-J as transformers stores it: parallel blocks with one norm, RoPE, an LM head with a bias.

Names, shapes and defaults: huggingface/transformers `models/gptj/configuration_gptj.py` and
`modeling_gptj.py`. Attention has no bias, the feed-forward has. Old files hold each causal mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    embedding,
    feed_forward,
    feed_forward_width,
    lm_head,
    norm,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import field_name, flag, layers, size
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of GPTJForCausalLM for a config.json."""
    heads = read_heads(
        config,
        width=field_name(config, "n_embd", "hidden_size"),
        heads=field_name(config, "n_head", "num_attention_heads"),
        kv_heads=None,
        head_dim=None,
        defaults=(4096, 16, None, None),
    )
    inner = size(config, "n_inner", 4 * heads.symbols["d"])
    hidden = feed_forward_width(inner, heads.symbols["d"])
    tied = flag(config, "tie_word_embeddings", False)
    symbols = {
        "V": size(config, "vocab_size", 50400),
        "L": layers(config, field_name(config, "n_layer", "num_hidden_layers"), 28),
        "f": inner,
        **heads.symbols,
    }
    block = "transformer.h.{i}"
    tensors = (
        embedding("transformer.wte"),
        *norm(f"{block}.ln_1", components.ATTENTION_NORM, bias=True),
        *separate_attention(f"{block}.attn", heads, output="out_proj"),
        *feed_forward(f"{block}.mlp.fc_in", f"{block}.mlp.fc_out", hidden, bias=True),
        *norm("transformer.ln_f", components.FINAL_NORM, bias=True, repeat=ONE),
        *lm_head("lm_head", tied=tied, bias=True),
    )
    return Layout(
        "gptj",
        tensors,
        symbols,
        ties=(("lm_head.weight", "transformer.wte.weight"),) if tied else (),
        ignored=(f"{block}.attn.bias", f"{block}.attn.masked_bias"),
        attention=(heads.attention(),),
        context_length=size(
            config, field_name(config, "n_positions", "max_position_embeddings"), 2048
        ),
    )
