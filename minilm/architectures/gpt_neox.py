"""GPT-NeoX and Pythia as transformers stores them: fused query-key-value, RoPE, an untied head.

Names, shapes and defaults: huggingface/transformers `models/gpt_neox/configuration_gpt_neox.py` and
`modeling_gpt_neox.py`. In files the head is called `embed_out`, whatever a module calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    d,
    embedding,
    feed_forward,
    feed_forward_width,
    linear,
    lm_head,
    norm,
    read_heads,
)
from minilm.architectures.config_fields import flag, layers, size
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of GPTNeoXForCausalLM for a config.json."""
    heads = read_heads(config, kv_heads=None, head_dim=None, defaults=(6144, 64, None, None))
    inner = size(config, "intermediate_size", 24576)
    bias = flag(config, "attention_bias", True)
    tied = flag(config, "tie_word_embeddings", False)
    symbols = {
        "V": size(config, "vocab_size", 50432),
        "L": layers(config, "num_hidden_layers", 44),
        "f": inner,
        **heads.symbols,
    }
    block = "gpt_neox.layers.{i}"
    attention = f"{block}.attention"
    tensors = (
        embedding("gpt_neox.embed_in"),
        *norm(f"{block}.input_layernorm", components.ATTENTION_NORM, bias=True),
        *linear(
            f"{attention}.query_key_value",
            3 * d,
            d,
            components.ATTENTION_QUERY_KEY_VALUE,
            bias=bias,
        ),
        *linear(f"{attention}.dense", d, d, components.ATTENTION_OUTPUT, bias=bias),
        *norm(f"{block}.post_attention_layernorm", components.FEED_FORWARD_NORM, bias=True),
        *feed_forward(
            f"{block}.mlp.dense_h_to_4h",
            f"{block}.mlp.dense_4h_to_h",
            feed_forward_width(inner, heads.symbols["d"]),
            bias=True,
        ),
        *norm("gpt_neox.final_layer_norm", components.FINAL_NORM, bias=True, repeat=ONE),
        *lm_head("embed_out", tied=tied),
    )
    return Layout(
        "gpt_neox",
        tensors,
        symbols,
        ties=(("embed_out.weight", "gpt_neox.embed_in.weight"),) if tied else (),
        ignored=(
            f"{attention}.bias",
            f"{attention}.masked_bias",
            f"{attention}.rotary_emb.inv_freq",
        ),
        attention=(heads.attention(),),
        context_length=size(config, "max_position_embeddings", 2048),
    )
