"""Fields of config.json that several architectures have, in both directions: sizes, RoPE, activations."""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.config_fields import number, size
from minilm.config import ModelConfig
from minilm.errors import ConfigError
from minilm.ledger.layout import Layout

Fields = Mapping[str, Any]  # of a config.json
HF_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu2": "relu2",
    "swiglu": "silu",
    "geglu": "gelu",
}
_UNGATED = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
    "relu2": "relu2",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}
_GATED = {"silu": "swiglu", "swish": "swiglu", "gelu": "geglu"}


def size_fields(config: ModelConfig) -> dict[str, Any]:
    """The sizes under the names that most architectures use."""
    return {
        "max_position_embeddings": config.context_length,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.d_feed_forward,
    }


def gated_fields(config: ModelConfig) -> dict[str, Any]:
    """The fields of Llama and those after it."""
    return {
        **size_fields(config),
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        **rope_fields(config),
        "hidden_act": HF_ACTIVATIONS[config.feed_forward],
        "rms_norm_eps": config.norm_epsilon,
        "attention_dropout": config.dropout,
    }


def read_gated(fields: Fields) -> dict[str, Any]:
    """The inverse of `gated_fields`, but for the sizes."""
    return {
        "feed_forward": read_activation(fields, "hidden_act", "silu", gated=True),
        "norm": "rmsnorm",
        "norm_epsilon": number(fields, "rms_norm_eps", 1e-6),
        **read_rope(fields, "rope_theta"),
    }


def rope_fields(config: ModelConfig) -> dict[str, Any]:
    """RoPE under the names before and since transformers 5."""
    return {
        "rope_theta": config.rope_theta,
        "rope_parameters": rope_parameters(config),
        "rope_scaling": rope_parameters(config) if config.rope_scaling != "none" else None,
    }


def rope_parameters(config: ModelConfig) -> dict[str, Any]:
    """`rope_parameters` of transformers 5."""
    if config.rope_scaling == "none":
        return {"rope_type": "default", "rope_theta": config.rope_theta}
    parameters = {
        "rope_type": config.rope_scaling,
        "rope_theta": config.rope_theta,
        "factor": config.rope_factor,
    }
    if config.rope_scaling == "llama3":
        parameters |= {
            "low_freq_factor": config.rope_low_factor,
            "high_freq_factor": config.rope_high_factor,
            "original_max_position_embeddings": config.rope_original_context,
        }
    return parameters


def read_rope_parameters(fields: Fields) -> Fields:
    """`rope_parameters`, or what transformers called it before 5."""
    for name in ("rope_parameters", "rope_scaling"):
        parameters = fields.get(name)
        if isinstance(parameters, dict):
            return parameters
    return {}


def read_rope(fields: Fields, theta: str) -> dict[str, Any]:
    """The frequencies, their base under ``theta`` or in `rope_parameters`.

    Raises ConfigError for a scaling that minilm does not compute.
    """
    parameters = read_rope_parameters(fields)
    rope_type = parameters.get("rope_type", parameters.get("type", "default"))
    if rope_type not in ("default", "linear", "llama3"):
        raise ConfigError(
            "config.json: rope_parameters",
            f"rope_type {shortened(rope_type)}",
            "default, linear or llama3",
        )
    if parameters.get("rope_theta") is not None:
        base = number(parameters, "rope_theta", 10000.0)
    else:
        base = number(fields, theta, 10000.0)
    if rope_type == "default":
        return {"rope_theta": base}
    scaling: dict[str, Any] = {
        "rope_theta": base,
        "rope_scaling": rope_type,
        "rope_factor": number(parameters, "factor", 1.0),
    }
    if rope_type == "llama3":
        scaling |= {
            "rope_low_factor": number(parameters, "low_freq_factor", 1.0),
            "rope_high_factor": number(parameters, "high_freq_factor", 4.0),
            "rope_original_context": size(parameters, "original_max_position_embeddings", 8192),
        }
    return scaling


def read_rotary_dim(fields: Fields, layout: Layout, default: float) -> int:
    """Elements of a head that rotate, from their share of it, ``default`` where the file has none."""
    name = "partial_rotary_factor"
    share = number(read_rope_parameters(fields), name, number(fields, name, default))
    return int(layout.symbols["k"] * share)


def read_activation(fields: Fields, name: str, default: str, *, gated: bool = False) -> str:
    """`feed_forward` of ModelConfig. Raises ConfigError for an activation that minilm has not."""
    known = _GATED if gated else _UNGATED
    value = default if fields.get(name) is None else fields[name]
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"config.json: {name}", shortened(value), f"one of {', '.join(known)}")
    return known[value]
