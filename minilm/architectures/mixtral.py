"""Mixtral as its files store it: Mistral with E experts in every layer, of which a token uses e.

Names: mistralai/Mixtral-8x7B-v0.1 (`block_sparse_moe`, w1 gate, w3 up, w2 down). Defaults:
huggingface/transformers `models/mixtral/configuration_mixtral.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    attention_kinds,
    embedding,
    lm_head,
    norm,
    read_heads,
    separate_attention,
    window_size,
)
from minilm.architectures.config_fields import field_name, flag, layers, size
from minilm.architectures.moe import LayerGroup, read_experts, routed_experts
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of MixtralForCausalLM for a config.json."""
    heads = read_heads(config, defaults=(4096, 32, 8, None))
    num_layers = layers(config, "num_hidden_layers", 32)
    tied = flag(config, "tie_word_embeddings", False)
    experts = read_experts(
        config,
        layers=num_layers,
        total=field_name(config, "num_local_experts", "num_experts"),
        width="intermediate_size",
        defaults=(8, 2, 14336),
    )
    symbols = {
        "V": size(config, "vocab_size", 32000),
        "L": num_layers,
        **heads.symbols,
        **experts,
    }
    block = "model.layers.{i}"
    tensors = (
        embedding("model.embed_tokens"),
        *norm(f"{block}.input_layernorm", components.ATTENTION_NORM),
        *separate_attention(f"{block}.self_attn", heads),
        *norm(f"{block}.post_attention_layernorm", components.FEED_FORWARD_NORM),
        *routed_experts(f"{block}.block_sparse_moe", LayerGroup(), names=("w1", "w3", "w2")),
        *norm("model.norm", components.FINAL_NORM, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        "mixtral",
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        attention=attention_kinds(heads, num_layers, num_layers, window_size(config, 0)),
        context_length=size(config, "max_position_embeddings", 131072),
    )
