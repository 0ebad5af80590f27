"""OLMo and OLMo 2 as transformers stores them: Llama's matrices with other norms.

OLMo's LayerNorms have no parameters. OLMo 2 normalises what attention and feed-forward put out, not
what goes in, and all queries and all keys of a token at once. Names, shapes and defaults:
huggingface/transformers `models/olmo` and `models/olmo2`.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    Heads,
    embedding,
    gated_feed_forward,
    lm_head,
    norm,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import flag, layers, size
from minilm.architectures.conversion import Importable
from minilm.architectures.shared_fields import Fields, read_activation, read_rope
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Olmo{,2}ForCausalLM for a config.json."""
    has_norms = config["model_type"] == "olmo2"
    heads = read_heads(config, defaults=(4096, 32, None, None))
    tied = flag(config, "tie_word_embeddings", False)
    symbols = {
        "V": size(config, "vocab_size", 50304),
        "L": layers(config, "num_hidden_layers", 32),
        "f": size(config, "intermediate_size", 11008),
        **heads.symbols,
    }
    block = "model.layers.{i}"
    bias = flag(config, "attention_bias", False)
    tensors = (
        embedding("model.embed_tokens"),
        *separate_attention(f"{block}.self_attn", heads, qkv_bias=bias, output_bias=bias),
        *gated_feed_forward(f"{block}.mlp"),
        *(_norms(block, heads) if has_norms else ()),
        *(norm("model.norm", components.FINAL_NORM, repeat=ONE) if has_norms else ()),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        config["model_type"],
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        attention=(heads.attention(),),
        context_length=size(config, "max_position_embeddings", 2048),
    )


def _norms(block: str, heads: Heads) -> tuple[Tensor, ...]:
    return (
        *norm(f"{block}.self_attn.q_norm", components.ATTENTION_QK_NORM, width=heads.queries),
        *norm(f"{block}.self_attn.k_norm", components.ATTENTION_QK_NORM, width=heads.keys),
        *norm(f"{block}.post_attention_layernorm", components.ATTENTION_OUTPUT_NORM),
        *norm(f"{block}.post_feedforward_layernorm", components.FEED_FORWARD_OUTPUT_NORM),
    )


def _minilm_fields(fields: Fields) -> dict[str, Any]:
    if fields.get("clip_qkv") is not None:
        raise ConfigError("config.json: clip_qkv", shortened(fields["clip_qkv"]), "null")
    return {
        "feed_forward": read_activation(fields, "hidden_act", "silu", gated=True),
        "norm_bias": False,  # nor gains
        "norm_epsilon": 1e-5,
        **read_rope(fields, "rope_theta"),
    }


IMPORTABLE = (Importable("olmo", layout, _minilm_fields),)
