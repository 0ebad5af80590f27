"""StarCoder2: what fits LayerNorm and RoPE with grouped heads or a window.

Fields, defaults and names: huggingface/transformers, `models/starcoder2/`.
"""

from __future__ import annotations

from typing import Any

from minilm.architectures.config_fields import flag, size
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
    Defaults,
    Fields,
    activation,
    all_of,
    biases_alike,
    common_fields,
    every_bias_alike,
    head,
    heads_fill_the_width,
    kinds,
    linear,
    number,
    projections,
    read_common,
    read_rope,
    rope,
    unless,
)

_STARCODER2_DEFAULTS = Defaults(3072, 30, 24, 4096)


def _write_starcoder2(config: ModelConfig) -> dict[str, Any]:
    return common_fields(config) | {
        "num_key_value_heads": config.num_kv_heads,
        "rope_theta": config.rope_theta,
        "rope_parameters": rope(config),
        "rope_scaling": rope(config) if config.rope_scaling != "none" else None,
        "hidden_act": ACTIVATIONS[config.feed_forward],
        "norm_epsilon": config.norm_epsilon,
        "use_bias": config.qkv_bias,
        "sliding_window": config.sliding_window or None,
        "residual_dropout": config.dropout,
        "embedding_dropout": config.dropout,
        "attention_dropout": config.dropout,
    }


def _read_starcoder2(fields: Fields) -> dict[str, Any]:
    bias, window = flag(fields, "use_bias", True), fields.get("sliding_window")
    return read_common(fields, _STARCODER2_DEFAULTS) | {
        "num_kv_heads": size(fields, "num_key_value_heads", 2),
        "d_feed_forward": size(fields, "intermediate_size", 12288),
        "feed_forward": activation(fields, "hidden_act", "gelu_pytorch_tanh", SPELLINGS),
        "norm_epsilon": number(fields, "norm_epsilon", 1e-5),
        **read_rope(fields, "rope_theta"),
        "qkv_bias": bias,
        "attention_output_bias": bias,
        "feed_forward_bias": bias,
        "sliding_window": 0 if window is None else size(fields, "sliding_window"),
    }


def _starcoder2_pieces(config: ModelConfig) -> list[Piece]:
    h, both = "model.layers.{i}", ("weight", "bias")
    biased = kinds(config.qkv_bias)
    block = [
        *linear(f"{h}.input_layernorm", f"{BLOCK}.attention_norm", *both),
        *projections(f"{h}.self_attn", *biased),
        *linear(f"{h}.self_attn.o_proj", f"{BLOCK}.attention.output", *biased),
        *linear(f"{h}.post_attention_layernorm", f"{BLOCK}.feed_forward_norm", *both),
        *linear(f"{h}.mlp.c_fc", f"{BLOCK}.feed_forward.up", *biased),
        *linear(f"{h}.mlp.c_proj", f"{BLOCK}.feed_forward.down", *biased),
    ]
    return [
        Piece("model.embed_tokens.weight", ("embedding.token.weight",)),
        *pieces_of_layers(block, config.num_layers),
        *linear("model.norm", "final_norm", *both),
        *head("lm_head", config),
    ]


STARCODER2 = Architecture(
    "starcoder2",
    "Starcoder2ForCausalLM",
    all_of(
        unless(position="rope"),
        PLAIN,
        WHOLE_HEADS,
        LAYERNORM,
        unless(qk_norm=False),
        heads_fill_the_width,
        biases_alike,
        every_bias_alike,
    ),
    _write_starcoder2,
    _read_starcoder2,
    _starcoder2_pieces,
)
