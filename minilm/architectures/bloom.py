"""BLOOM as transformers stores it: a norm on the embedding, ALiBi, fused query-key-value, a tied head.

Names, shapes and defaults: huggingface/transformers `models/bloom/configuration_bloom.py` and
`modeling_bloom.py`. The feed-forward is 4d wide. The published files leave out `transformer.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    d,
    embedding,
    feed_forward,
    fused_attention,
    lm_head,
    norm,
    read_heads,
)
from minilm.architectures.config_fields import field_name, flag, layers, optional_size, size
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of BloomForCausalLM for a config.json."""
    heads = read_heads(
        config,
        width=field_name(config, "hidden_size", "n_embed"),
        heads=field_name(config, "n_head", "num_attention_heads"),
        kv_heads=None,
        head_dim=None,
        defaults=(64, 8, None, None),
    )
    tied = flag(config, "tie_word_embeddings", True)
    symbols = {
        "V": size(config, "vocab_size", 250880),
        "L": layers(config, field_name(config, "n_layer", "num_hidden_layers"), 2),
        **heads.symbols,
    }
    block = "transformer.h.{i}"
    attention, mlp = f"{block}.self_attention", f"{block}.mlp"
    tensors = (
        embedding("transformer.word_embeddings"),
        *norm(
            "transformer.word_embeddings_layernorm",
            components.EMBEDDING_NORM,
            bias=True,
            repeat=ONE,
        ),
        *norm(f"{block}.input_layernorm", components.ATTENTION_NORM, bias=True),
        *fused_attention(f"{attention}.query_key_value", f"{attention}.dense", heads, bias=True),
        *norm(f"{block}.post_attention_layernorm", components.FEED_FORWARD_NORM, bias=True),
        *feed_forward(f"{mlp}.dense_h_to_4h", f"{mlp}.dense_4h_to_h", 4 * d, bias=True),
        *norm("transformer.ln_f", components.FINAL_NORM, bias=True, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        "bloom",
        tensors,
        symbols,
        ties=(("lm_head.weight", "transformer.word_embeddings.weight"),) if tied else (),
        optional_prefix="transformer.",
        attention=(heads.attention(),),
        # ALiBi has no longest context; files may say what the model was trained with.
        context_length=optional_size(config, "seq_length") or 0,
    )
