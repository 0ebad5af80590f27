"""Phi (1, 1.5, 2) as transformers stores it: parallel blocks with one norm, RoPE, every bias.

Names, shapes and defaults: huggingface/transformers `models/phi/configuration_phi.py` and
`modeling_phi.py`. The LM head has a bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    embedding,
    feed_forward,
    feed_forward_width,
    k,
    lm_head,
    norm,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import flag, layers, size
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of PhiForCausalLM for a config.json."""
    heads = read_heads(config, defaults=(2048, 32, None, None))
    inner = size(config, "intermediate_size", 8192)
    hidden = feed_forward_width(inner, heads.symbols["d"])
    tied = flag(config, "tie_word_embeddings", False)
    symbols = {
        "V": size(config, "vocab_size", 51200),
        "L": layers(config, "num_hidden_layers", 24),
        "f": inner,
        **heads.symbols,
    }
    block = "model.layers.{i}"
    attention = f"{block}.self_attn"
    tensors = (
        embedding("model.embed_tokens"),
        *norm(f"{block}.input_layernorm", components.ATTENTION_NORM, bias=True),
        *separate_attention(attention, heads, qkv_bias=True, output_bias=True, output="dense"),
        *(_query_key_norms(attention) if flag(config, "qk_layernorm", False) else ()),
        *feed_forward(f"{block}.mlp.fc1", f"{block}.mlp.fc2", hidden, bias=True),
        *norm("model.final_layernorm", components.FINAL_NORM, bias=True, repeat=ONE),
        *lm_head("lm_head", tied=tied, bias=True),
    )
    return Layout(
        "phi",
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        ignored=(f"{attention}.rotary_emb.inv_freq",),
        attention=(heads.attention(),),
        context_length=size(config, "max_position_embeddings", 2048),
    )


def _query_key_norms(attention: str) -> tuple[Tensor, ...]:
    """One norm for all query heads and one for all key heads, each as wide as a head."""
    part = components.ATTENTION_QK_NORM
    return (
        *norm(f"{attention}.q_layernorm", part, width=k, bias=True),
        *norm(f"{attention}.k_layernorm", part, width=k, bias=True),
    )
