"""Llama, Mistral, Qwen2 and Qwen3: RMSNorm, RoPE and a gate.

Fields, defaults and names: huggingface/transformers, `models/{llama,mistral,qwen2,qwen3}/`.
"""

from __future__ import annotations

from reprlib import repr as shortened
from typing import Any

from minilm.architectures.config_fields import flag, layers, size
from minilm.architectures.tensor_map import Piece, pieces_of_layers
from minilm.config import ModelConfig
from minilm.errors import ConfigError
from minilm.interop.architectures.common import (
    BLOCK,
    GATED,
    PLAIN,
    RMSNORM,
    WHOLE_HEADS,
    Architecture,
    Defaults,
    Fields,
    activation,
    all_of,
    biases_alike,
    common_fields,
    head,
    heads_fill_the_width,
    kinds,
    linear,
    number,
    projections,
    read_common,
    read_rope,
    refuse_unless,
    rope,
    unless,
)

_INV_FREQ = "model.layers.{i}.self_attn.rotary_emb.inv_freq"
_LLAMA_DEFAULTS = Defaults(4096, 32, 32, 2048, 11008)
_MISTRAL_DEFAULTS = Defaults(4096, 32, 32, 131072, 14336, 8)
_QWEN2_DEFAULTS = Defaults(4096, 32, 32, 32768, 22016, 32)
_QWEN3_DEFAULTS = Defaults(4096, 32, 32, 32768, 22016, 32, 128)
_GATED_SPELLINGS = {"silu": "swiglu", "swish": "swiglu", "gelu": "geglu"}


def _write_llama(config: ModelConfig) -> dict[str, Any]:
    return _write_gated(config) | {
        "attention_bias": config.qkv_bias,
        "mlp_bias": config.feed_forward_bias,
    }


def _write_mistral(config: ModelConfig) -> dict[str, Any]:
    return _write_gated(config) | {"sliding_window": config.sliding_window or None}


def _write_qwen(config: ModelConfig) -> dict[str, Any]:
    window = config.sliding_window
    kind = "sliding_attention" if window else "full_attention"
    return _write_gated(config) | {
        "attention_bias": config.qkv_bias,
        "use_sliding_window": bool(window),
        "sliding_window": window or None,
        "max_window_layers": 0 if window else config.num_layers,
        "layer_types": [kind] * config.num_layers,
    }


def _write_gated(config: ModelConfig) -> dict[str, Any]:
    return common_fields(config) | {
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rope_theta": config.rope_theta,
        "rope_parameters": rope(config),
        "rope_scaling": rope(config) if config.rope_scaling != "none" else None,
        "hidden_act": GATED[config.feed_forward],
        "rms_norm_eps": config.norm_epsilon,
        "attention_dropout": config.dropout,
    }


def _read_llama(fields: Fields) -> dict[str, Any]:
    bias = flag(fields, "attention_bias", False)
    refuse_unless(fields, "pretraining_tp", 1)
    return _read_gated(fields, _LLAMA_DEFAULTS) | {
        "qkv_bias": bias,
        "attention_output_bias": bias,
        "feed_forward_bias": flag(fields, "mlp_bias", False),
    }


def _read_mistral(fields: Fields) -> dict[str, Any]:
    window = fields.get("sliding_window", 4096)
    return _read_gated(fields, _MISTRAL_DEFAULTS) | {
        "qkv_bias": False,
        "attention_output_bias": False,
        "feed_forward_bias": False,
        "sliding_window": 0 if window is None else size(fields, "sliding_window", 4096),
    }


def _read_qwen(fields: Fields) -> dict[str, Any]:
    third = fields["model_type"] == "qwen3"
    bias = flag(fields, "attention_bias", False) if third else True
    return _read_gated(fields, _QWEN3_DEFAULTS if third else _QWEN2_DEFAULTS) | {
        "qkv_bias": bias,
        "attention_output_bias": bias and third,
        "feed_forward_bias": False,
        "qk_norm": third,
        "sliding_window": _qwen_window(fields),
    }


def _qwen_window(fields: Fields) -> int:
    """The window of all layers; ConfigError where some slide and some do not."""
    if not flag(fields, "use_sliding_window", False):
        return 0
    window, count = size(fields, "sliding_window", 4096), layers(fields, "num_hidden_layers", 32)
    types = fields.get("layer_types")
    if isinstance(types, list):
        known = ("sliding_attention", "full_attention")
        if len(types) != count or not all(kind in known for kind in types):
            raise ConfigError(
                "config.json: layer_types",
                shortened(types),
                f"{' or '.join(known)} for each of {count} layers",
            )
        sliding = [kind == known[0] for kind in types]
    else:
        full = fields.get("max_window_layers", 28)
        if type(full) is not int:
            raise ConfigError(
                "config.json: max_window_layers", shortened(full), "a number of layers"
            )
        sliding = [i >= full for i in range(count)]
    if any(sliding) and not all(sliding):
        field = "layer_types" if isinstance(types, list) else "max_window_layers"
        raise ConfigError(
            f"config.json: {field}", "windows in some layers only", "in all of them or in none"
        )
    return window if any(sliding) else 0


def _read_gated(fields: Fields, defaults: Defaults) -> dict[str, Any]:
    heads = size(fields, "num_attention_heads", defaults.heads)
    width = size(fields, "hidden_size", defaults.width)
    given = defaults.head_dim if fields.get("head_dim") is None else fields["head_dim"]
    return read_common(fields, defaults) | {
        "num_kv_heads": size(fields, "num_key_value_heads", defaults.kv_heads or heads),
        "head_dim": width // heads if given is None else size({"head_dim": given}, "head_dim"),
        "d_feed_forward": size(fields, "intermediate_size", defaults.feed_forward),
        "feed_forward": activation(fields, "hidden_act", "silu", _GATED_SPELLINGS),
        "norm": "rmsnorm",
        "norm_epsilon": number(fields, "rms_norm_eps", 1e-6),
        **read_rope(fields, "rope_theta"),
    }


def _gated_pieces(config: ModelConfig) -> list[Piece]:
    h = "model.layers.{i}"
    qkv, out = kinds(config.qkv_bias), kinds(config.attention_output_bias)
    inner = kinds(config.feed_forward_bias)
    block = [
        *linear(f"{h}.input_layernorm", f"{BLOCK}.attention_norm", "weight"),
        *projections(f"{h}.self_attn", *qkv),
        *linear(f"{h}.self_attn.o_proj", f"{BLOCK}.attention.output", *out),
        *linear(f"{h}.post_attention_layernorm", f"{BLOCK}.feed_forward_norm", "weight"),
        *(
            piece
            for name in ("gate", "up", "down")
            for piece in linear(f"{h}.mlp.{name}_proj", f"{BLOCK}.feed_forward.{name}", *inner)
        ),
    ]
    if config.qk_norm:
        for name in ("query", "key"):
            block += linear(
                f"{h}.self_attn.{name[0]}_norm", f"{BLOCK}.attention.{name}_norm", "weight"
            )
    return [
        Piece("model.embed_tokens.weight", ("embedding.token.weight",)),
        *pieces_of_layers(block, config.num_layers),
        Piece("model.norm.weight", ("final_norm.weight",)),
        *head("lm_head", config),
    ]


LLAMA = Architecture(
    "llama",
    "LlamaForCausalLM",
    all_of(RMSNORM, PLAIN, WHOLE_HEADS, unless(sliding_window=0, qk_norm=False), biases_alike),
    _write_llama,
    _read_llama,
    _gated_pieces,
    ignored=(_INV_FREQ,),
)


MISTRAL = Architecture(
    "mistral",
    "MistralForCausalLM",
    all_of(
        RMSNORM,
        PLAIN,
        WHOLE_HEADS,
        unless(qk_norm=False),
        unless(qkv_bias=False, attention_output_bias=False, feed_forward_bias=False),
    ),
    _write_mistral,
    _read_mistral,
    _gated_pieces,
    ignored=(_INV_FREQ,),
)


QWEN2 = Architecture(
    "qwen2",
    "Qwen2ForCausalLM",
    all_of(
        RMSNORM,
        PLAIN,
        WHOLE_HEADS,
        unless(qk_norm=False),
        unless(qkv_bias=True, attention_output_bias=False, feed_forward_bias=False),
        heads_fill_the_width,
    ),
    _write_qwen,
    _read_qwen,
    _gated_pieces,
)


QWEN3 = Architecture(
    "qwen3",
    "Qwen3ForCausalLM",
    all_of(
        RMSNORM, PLAIN, WHOLE_HEADS, unless(qk_norm=True, feed_forward_bias=False), biases_alike
    ),
    _write_qwen,
    _read_qwen,
    _gated_pieces,
)
