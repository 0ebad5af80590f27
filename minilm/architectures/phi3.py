"""Phi-3 and Phi-4 as transformers stores them: Llama with query, key, value fused, and gate with up.

Names, shapes and defaults: huggingface/transformers `models/phi3/configuration_phi3.py` and
`modeling_phi3.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    attention_kinds,
    d,
    embedding,
    f,
    fused_attention,
    linear,
    lm_head,
    norm,
    read_heads,
    window_size,
)
from minilm.architectures.config_fields import flag, layers, size
from minilm.architectures.conversion import Importable
from minilm.architectures.shared_fields import Fields, read_gated, read_rotary_dim
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Phi3ForCausalLM for a config.json."""
    heads = read_heads(config, defaults=(3072, 32, None, None))
    num_layers = layers(config, "num_hidden_layers", 32)
    tied = flag(config, "tie_word_embeddings", False)
    symbols = {
        "V": size(config, "vocab_size", 32064),
        "L": num_layers,
        "f": size(config, "intermediate_size", 8192),
        **heads.symbols,
    }
    block = "model.layers.{i}"
    tensors = (
        embedding("model.embed_tokens"),
        *norm(f"{block}.input_layernorm", components.ATTENTION_NORM),
        *fused_attention(f"{block}.self_attn.qkv_proj", f"{block}.self_attn.o_proj", heads),
        *norm(f"{block}.post_attention_layernorm", components.FEED_FORWARD_NORM),
        *linear(f"{block}.mlp.gate_up_proj", 2 * f, d, components.FEED_FORWARD_GATE_UP),
        *linear(f"{block}.mlp.down_proj", d, f, components.FEED_FORWARD_DOWN),
        *norm("model.norm", components.FINAL_NORM, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        "phi3",
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        attention=attention_kinds(heads, num_layers, num_layers, window_size(config, 0)),
        context_length=size(config, "max_position_embeddings", 4096),
    )


def _minilm_fields(fields: Fields) -> dict[str, Any]:
    return {**read_gated(fields), "rotary_dim": read_rotary_dim(fields, layout(fields), 1.0)}


IMPORTABLE = (Importable("phi3", layout, _minilm_fields),)
