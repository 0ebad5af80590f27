"""Cohere's Command R as transformers stores it: parallel blocks behind one norm, a tied head.

The norms are LayerNorms without bias; Command R+ normalises each query and key head with gains of
its own. Names, shapes and defaults: huggingface/transformers `models/cohere`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    L,
    embedding,
    g,
    gated_feed_forward,
    h,
    k,
    lm_head,
    norm,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import flag, layers, size
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of CohereForCausalLM for a config.json."""
    heads = read_heads(config, defaults=(8192, 64, None, None))
    tied = flag(config, "tie_word_embeddings", True)
    symbols = {
        "V": size(config, "vocab_size", 256000),
        "L": layers(config, "num_hidden_layers", 40),
        "f": size(config, "intermediate_size", 22528),
        **heads.symbols,
    }
    block = "model.layers.{i}"
    bias = flag(config, "attention_bias", False)
    query_key_norms = (
        Tensor(
            f"{block}.self_attn.q_norm.weight",
            (h, k),
            components.ATTENTION_QK_NORM,
            Role.SCALED,
            L,
        ),
        Tensor(
            f"{block}.self_attn.k_norm.weight",
            (g, k),
            components.ATTENTION_QK_NORM,
            Role.SCALED,
            L,
        ),
    )
    tensors = (
        embedding("model.embed_tokens"),
        *norm(f"{block}.input_layernorm", components.ATTENTION_NORM),
        *separate_attention(f"{block}.self_attn", heads, qkv_bias=bias, output_bias=bias),
        *(query_key_norms if flag(config, "use_qk_norm", False) else ()),
        *gated_feed_forward(f"{block}.mlp"),
        *norm("model.norm", components.FINAL_NORM, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        "cohere",
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        attention=(heads.attention(),),
        context_length=size(config, "max_position_embeddings", 8192),
    )
