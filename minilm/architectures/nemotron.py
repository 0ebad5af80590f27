"""Nemotron-4 and Minitron as transformers stores them: LayerNorm, and squared ReLU without a gate.

Names, shapes and defaults: huggingface/transformers `models/nemotron/configuration_nemotron.py` and
`modeling_nemotron.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    embedding,
    feed_forward,
    feed_forward_width,
    lm_head,
    norm,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import flag, layers, size
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of NemotronForCausalLM for a config.json."""
    heads = read_heads(config, defaults=(6144, 48, None, None))
    tied = flag(config, "tie_word_embeddings", False)
    inner = size(config, "intermediate_size", 24576)
    symbols = {
        "V": size(config, "vocab_size", 256000),
        "L": layers(config, "num_hidden_layers", 32),
        "f": inner,
        **heads.symbols,
    }
    block = "model.layers.{i}"
    bias = flag(config, "attention_bias", False)
    tensors = (
        embedding("model.embed_tokens"),
        *norm(f"{block}.input_layernorm", components.ATTENTION_NORM, bias=True),
        *separate_attention(f"{block}.self_attn", heads, qkv_bias=bias, output_bias=bias),
        *norm(f"{block}.post_attention_layernorm", components.FEED_FORWARD_NORM, bias=True),
        *feed_forward(
            f"{block}.mlp.up_proj",
            f"{block}.mlp.down_proj",
            feed_forward_width(inner, symbols["d"]),
            bias=flag(config, "mlp_bias", False),
        ),
        *norm("model.norm", components.FINAL_NORM, bias=True, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        "nemotron",
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        attention=(heads.attention(),),
        context_length=size(config, "max_position_embeddings", 4096),
    )
