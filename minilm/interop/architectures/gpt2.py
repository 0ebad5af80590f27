"""GPT-2.

Fields, defaults and names: huggingface/transformers, `models/gpt2/`.
"""

from __future__ import annotations

from typing import Any

from minilm.architectures.config_fields import flag, layers, size, spelled
from minilm.architectures.tensor_map import Piece, pieces_of_layers
from minilm.config import ModelConfig
from minilm.interop.architectures.common import (
    ACTIVATIONS,
    BLOCK,
    LAYERNORM,
    PLAIN,
    SPELLINGS,
    WHOLE_HEADS,
    Architecture,
    Fields,
    activation,
    all_of,
    fused,
    head,
    heads_fill_the_width,
    linear,
    number,
    one_head_each,
    refuse,
    unless,
)


def _write_gpt2(config: ModelConfig) -> dict[str, Any]:
    activation = ACTIVATIONS[config.feed_forward]
    return {
        "n_positions": config.context_length,
        "n_ctx": config.context_length,
        "n_embd": config.d_model,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.d_feed_forward,
        "activation_function": "gelu_new" if activation == "gelu_pytorch_tanh" else activation,
        "layer_norm_epsilon": config.norm_epsilon,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
    }


def _read_gpt2(fields: Fields) -> dict[str, Any]:
    for name in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        refuse(fields, name, True)
    refuse(fields, "scale_attn_weights", False)
    width = size(fields, spelled(fields, "n_embd", "hidden_size"), 768)
    return {
        "context_length": size(
            fields, spelled(fields, "n_positions", "max_position_embeddings"), 1024
        ),
        "d_model": width,
        "num_layers": layers(fields, spelled(fields, "n_layer", "num_hidden_layers"), 12),
        "num_heads": size(fields, spelled(fields, "n_head", "num_attention_heads"), 12),
        "d_feed_forward": size(fields, "n_inner", 4 * width),
        "feed_forward": activation(fields, "activation_function", "gelu_new", SPELLINGS),
        "norm_epsilon": number(fields, "layer_norm_epsilon", 1e-5),
        "position": "learned",
        "tied_embeddings": flag(fields, "tie_word_embeddings", True),
    }


def _gpt2_pieces(config: ModelConfig) -> list[Piece]:
    h = "transformer.h.{i}"
    both = ("weight", "bias")
    block = [
        *linear(f"{h}.ln_1", f"{BLOCK}.attention_norm", *both),
        *fused(f"{h}.attn.c_attn", "joined_transposed", "joined", True),
        *linear(f"{h}.attn.c_proj", f"{BLOCK}.attention.output", *both, form="transposed"),
        *linear(f"{h}.ln_2", f"{BLOCK}.feed_forward_norm", *both),
        *linear(f"{h}.mlp.c_fc", f"{BLOCK}.feed_forward.up", *both, form="transposed"),
        *linear(f"{h}.mlp.c_proj", f"{BLOCK}.feed_forward.down", *both, form="transposed"),
    ]
    return [
        Piece("transformer.wte.weight", ("embedding.token.weight",)),
        Piece("transformer.wpe.weight", ("embedding.position.weight",)),
        *pieces_of_layers(block, config.num_layers),
        *linear("transformer.ln_f", "final_norm", *both),
        *head("lm_head", config),
    ]


GPT2 = Architecture(
    "gpt2",
    "GPT2LMHeadModel",
    all_of(
        unless(position="learned"),
        PLAIN,
        WHOLE_HEADS,
        LAYERNORM,
        unless(sliding_window=0, qk_norm=False),
        unless(qkv_bias=True, attention_output_bias=True, feed_forward_bias=True),
        one_head_each,
        heads_fill_the_width,
    ),
    _write_gpt2,
    _read_gpt2,
    _gpt2_pieces,
    optional_prefix="transformer.",
    ignored=("transformer.h.{i}.attn.bias", "transformer.h.{i}.attn.masked_bias"),
)
