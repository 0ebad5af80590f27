"""GPT-NeoX and Pythia.

Fields, defaults and names: huggingface/transformers, `models/gpt_neox/`.
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
    Architecture,
    Defaults,
    Fields,
    activation,
    all_of,
    biases_alike,
    common_fields,
    fused,
    head,
    heads_fill_the_width,
    kinds,
    linear,
    number,
    one_head_each,
    read_common,
    read_rope,
    rope,
    rope_fields,
    unless,
)

_NEOX_DEFAULTS = Defaults(6144, 44, 64, 2048)


def _write_neox(config: ModelConfig) -> dict[str, Any]:
    return common_fields(config) | {
        "rotary_pct": config.rotary_dim / config.head_dim,
        "rotary_emb_base": config.rope_theta,
        "rope_parameters": rope(config)
        | {"partial_rotary_factor": config.rotary_dim / config.head_dim},
        "use_parallel_residual": config.parallel_residual,
        "hidden_act": ACTIVATIONS[config.feed_forward],
        "layer_norm_eps": config.norm_epsilon,
        "attention_bias": config.qkv_bias,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.dropout,
    }


def _read_neox(fields: Fields) -> dict[str, Any]:
    rope = rope_fields(fields)
    where = fields if fields.get("rotary_pct") is not None else rope
    share = number(where, "rotary_pct" if where is fields else "partial_rotary_factor", 0.25)
    common = read_common(fields, _NEOX_DEFAULTS)
    head_dim = common["d_model"] // common["num_heads"]
    bias = flag(fields, "attention_bias", True)
    return common | {
        "rotary_dim": int(head_dim * share),
        "parallel_residual": flag(fields, "use_parallel_residual", True),
        "d_feed_forward": size(fields, "intermediate_size", 24576),
        "feed_forward": activation(fields, "hidden_act", "gelu", SPELLINGS),
        "norm_epsilon": number(fields, "layer_norm_eps", 1e-5),
        **read_rope(fields, "rotary_emb_base"),
        "qkv_bias": bias,
        "attention_output_bias": bias,
    }


def _neox_pieces(config: ModelConfig) -> list[Piece]:
    h, both, bias = "gpt_neox.layers.{i}", ("weight", "bias"), config.qkv_bias
    block = [
        *linear(f"{h}.input_layernorm", f"{BLOCK}.attention_norm", *both),
        *fused(f"{h}.attention.query_key_value", "by_head", "by_head", bias),
        *linear(f"{h}.attention.dense", f"{BLOCK}.attention.output", *kinds(bias)),
        *linear(f"{h}.post_attention_layernorm", f"{BLOCK}.feed_forward_norm", *both),
        *linear(f"{h}.mlp.dense_h_to_4h", f"{BLOCK}.feed_forward.up", *both),
        *linear(f"{h}.mlp.dense_4h_to_h", f"{BLOCK}.feed_forward.down", *both),
    ]
    return [
        Piece("gpt_neox.embed_in.weight", ("embedding.token.weight",)),
        *pieces_of_layers(block, config.num_layers),
        *linear("gpt_neox.final_layer_norm", "final_norm", *both),
        *head("embed_out", config),
    ]


GPT_NEOX = Architecture(
    "gpt_neox",
    "GPTNeoXForCausalLM",
    all_of(
        unless(position="rope"),
        PLAIN,
        LAYERNORM,
        unless(sliding_window=0, qk_norm=False, feed_forward_bias=True),
        one_head_each,
        heads_fill_the_width,
        biases_alike,
    ),
    _write_neox,
    _read_neox,
    _neox_pieces,
    ignored=(
        "gpt_neox.layers.{i}.attention.bias",
        "gpt_neox.layers.{i}.attention.masked_bias",
        "gpt_neox.layers.{i}.attention.rotary_emb.inv_freq",
    ),
)
