"""Mistral as transformers stores it: Llama's tensors, grouped heads, a sliding window in every layer.

Names, shapes and defaults: huggingface/transformers `models/mistral/configuration_mistral.py` and
`modeling_mistral.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    attention_kinds,
    embedding,
    gated_feed_forward,
    lm_head,
    norm,
    read_heads,
    separate_attention,
    window_size,
)
from minilm.architectures.config_fields import flag, layers, size
from minilm.architectures.conversion import (
    LLAMA_GRAPH,
    RMSNORM,
    STANDARD_BLOCK,
    Architecture,
    GgufGraph,
    all_of,
    requires,
)
from minilm.architectures.shared_fields import gated_fields, read_gated
from minilm.config import ModelConfig
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of MistralForCausalLM for a config.json."""
    heads = read_heads(config, defaults=(4096, 32, 8, None))
    num_layers = layers(config, "num_hidden_layers", 32)
    tied = flag(config, "tie_word_embeddings", False)
    symbols = {
        "V": size(config, "vocab_size", 32000),
        "L": num_layers,
        "f": size(config, "intermediate_size", 14336),
        **heads.symbols,
    }
    block = "model.layers.{i}"
    tensors = (
        embedding("model.embed_tokens"),
        *norm(f"{block}.input_layernorm", components.ATTENTION_NORM),
        *separate_attention(f"{block}.self_attn", heads),
        *norm(f"{block}.post_attention_layernorm", components.FEED_FORWARD_NORM),
        *gated_feed_forward(f"{block}.mlp"),
        *norm("model.norm", components.FINAL_NORM, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        "mistral",
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        ignored=(f"{block}.self_attn.rotary_emb.inv_freq",),
        attention=attention_kinds(heads, num_layers, num_layers, window_size(config, 4096)),
        context_length=size(config, "max_position_embeddings", 131072),
    )


def _hf_fields(config: ModelConfig) -> dict[str, Any]:
    return gated_fields(config) | {"sliding_window": config.sliding_window or None}


ARCHITECTURES = (
    Architecture(
        model_type="mistral",
        class_name="MistralForCausalLM",
        layout=layout,
        unsupported_fields=all_of(
            RMSNORM,
            STANDARD_BLOCK,
            requires(qk_norm=False),
            requires(qkv_bias=False, attention_output_bias=False, feed_forward_bias=False),
        ),
        hf_fields=_hf_fields,
        minilm_fields=read_gated,
        gguf=GgufGraph(LLAMA_GRAPH, adjacent_rotary=True),
    ),
)
