"""What the stock architectures share: what an architecture is, checks, fields, and names of linear maps.

A field of config.json that is not read changes nothing that this model computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.config_fields import flag, layers, size
from minilm.architectures.tensor_map import Piece
from minilm.config import ModelConfig
from minilm.errors import ConfigError

Fields = Mapping[str, Any]
Hindrance = tuple[str, str]  # one of our fields, and what it would have to be

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu2": "relu2"}
GATED = {"swiglu": "silu", "geglu": "gelu"}
SPELLINGS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"}
BLOCK = "blocks.{i}"
ATTENTION = tuple(f"{BLOCK}.attention.{name}" for name in ("query", "key", "value"))


@dataclass(frozen=True)
class Architecture:
    """One model class of transformers."""

    family: str
    class_name: str
    hindrances: Callable[[ModelConfig], list[Hindrance]]
    write: Callable[[ModelConfig], dict[str, Any]]
    read: Callable[[Fields], dict[str, Any]]
    pieces: Callable[[ModelConfig], list[Piece]]
    optional_prefix: str = ""
    ignored: tuple[str, ...] = ()

    def config(self, config: ModelConfig) -> dict[str, Any]:
        """The content of its config.json."""
        return {
            "architectures": [self.class_name],
            "model_type": self.family,
            "vocab_size": config.vocab_size,
            "tie_word_embeddings": config.tied_embeddings,
            "initializer_range": config.init_std,
            "torch_dtype": "float32",
            "use_cache": True,
            **self.write(config),
        }

    def model_config(self, fields: Fields) -> ModelConfig:
        """Ours, of its config.json. Raises ConfigError for a field that we cannot follow."""
        return ModelConfig(vocab_size=size(fields, "vocab_size"), **self.read(fields))


def unless(**expected: Any) -> Callable[[ModelConfig], list[Hindrance]]:
    """Fields and the values they must have; a tuple where there are several."""

    def found(config: ModelConfig) -> list[Hindrance]:
        return [
            (name, " or ".join(map(spelled_out, values)))
            for name, wanted in expected.items()
            for values in [wanted if isinstance(wanted, tuple) else (wanted,)]
            if getattr(config, name) not in values
        ]

    return found


def spelled_out(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def all_of(*checks: Callable[[ModelConfig], list[Hindrance]]) -> Any:
    return lambda config: [each for check in checks for each in check(config)]


def one_head_each(config: ModelConfig) -> list[Hindrance]:
    same = config.num_kv_heads == config.num_heads
    return [] if same else [("num_kv_heads", f"num_heads, {config.num_heads}")]


def heads_fill_the_width(config: ModelConfig) -> list[Hindrance]:
    fills = config.num_heads * config.head_dim == config.d_model
    return [] if fills else [("head_dim", "d_model / num_heads")]


def biases_alike(config: ModelConfig) -> list[Hindrance]:
    alike = config.attention_output_bias == config.qkv_bias
    return (
        [] if alike else [("attention_output_bias", f"{spelled_out(config.qkv_bias)}, as qkv_bias")]
    )


def every_bias_alike(config: ModelConfig) -> list[Hindrance]:
    alike = config.feed_forward_bias == config.qkv_bias
    return [] if alike else [("feed_forward_bias", f"{spelled_out(config.qkv_bias)}, as qkv_bias")]


def whole_head_turns(config: ModelConfig) -> list[Hindrance]:
    whole = config.rotary_dim == config.head_dim
    return [] if whole else [("rotary_dim", f"head_dim, {config.head_dim}")]


PLAIN = unless(ngram=1, convolution=0)
WHOLE_HEADS = all_of(whole_head_turns, unless(parallel_residual=False))
LAYERNORM = unless(norm="layernorm", norm_bias=True, feed_forward=tuple(ACTIVATIONS))
RMSNORM = unless(norm="rmsnorm", feed_forward=tuple(GATED), position="rope")


def linear(theirs: str, ours: str, *kinds: str, form: Any = "same") -> list[Piece]:
    """A weight and, as ``kinds`` say, its bias; a bias has no side to turn to."""
    turned = {"transposed": "same", "joined_transposed": "joined"}
    return [
        Piece(
            f"{theirs}.{kind}",
            (f"{ours}.{kind}",),
            form if kind == "weight" else turned.get(form, form),
        )
        for kind in kinds
    ]


def projections(theirs: str, *kinds: str) -> list[Piece]:
    """Query, key and value apart, as q_proj, k_proj and v_proj."""
    return [
        piece
        for name in ("query", "key", "value")
        for piece in linear(f"{theirs}.{name[0]}_proj", f"{BLOCK}.attention.{name}", *kinds)
    ]


def fused(theirs: str, form: Any, bias_form: Any, bias: bool) -> list[Piece]:
    forms = {"weight": form} | ({"bias": bias_form} if bias else {})
    return [
        Piece(f"{theirs}.{kind}", tuple(f"{name}.{kind}" for name in ATTENTION), form)
        for kind, form in forms.items()
    ]


def kinds(bias: bool) -> tuple[str, ...]:
    return ("weight", "bias") if bias else ("weight",)


@dataclass(frozen=True)
class Defaults:
    """What transformers takes for a size that config.json leaves out."""

    width: int
    layers: int
    heads: int
    context: int
    feed_forward: int = 0
    kv_heads: int | None = None
    head_dim: int | None = None


def common_fields(config: ModelConfig) -> dict[str, Any]:
    return {
        "max_position_embeddings": config.context_length,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.d_feed_forward,
    }


def read_common(fields: Fields, defaults: Defaults) -> dict[str, Any]:
    return {
        "context_length": size(fields, "max_position_embeddings", defaults.context),
        "d_model": size(fields, "hidden_size", defaults.width),
        "num_layers": layers(fields, "num_hidden_layers", defaults.layers),
        "num_heads": size(fields, "num_attention_heads", defaults.heads),
        "tied_embeddings": flag(fields, "tie_word_embeddings", False),
    }


def head(theirs: str, config: ModelConfig) -> list[Piece]:
    return [] if config.tied_embeddings else [Piece(f"{theirs}.weight", ("lm_head.weight",))]


def rope(config: ModelConfig) -> dict[str, Any]:
    if config.rope_scaling == "none":
        return {"rope_type": "default", "rope_theta": config.rope_theta}
    scaled = {
        "rope_type": config.rope_scaling,
        "rope_theta": config.rope_theta,
        "factor": config.rope_factor,
    }
    if config.rope_scaling == "llama3":
        scaled |= {
            "low_freq_factor": config.rope_low_factor,
            "high_freq_factor": config.rope_high_factor,
            "original_max_position_embeddings": config.rope_original_context,
        }
    return scaled


def rope_fields(fields: Fields) -> Fields:
    """`rope_parameters`, or what transformers called it before 5."""
    for name in ("rope_parameters", "rope_scaling"):
        found = fields.get(name)
        if isinstance(found, dict):
            return found
    return {}


def read_rope(fields: Fields, theta: str) -> dict[str, Any]:
    """The frequencies. Raises ConfigError for a scaling that we have not."""
    rope = rope_fields(fields)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise ConfigError(
            "config.json: rope_parameters",
            f"rope_type {shortened(kind)}",
            "default, linear or llama3",
        )
    where = rope if rope.get("rope_theta") is not None else fields
    found = {"rope_theta": number(where, "rope_theta" if where is rope else theta, 10000.0)}
    if kind == "default":
        return found
    scaled: dict[str, Any] = {"rope_scaling": kind, "rope_factor": number(rope, "factor", 1.0)}
    if kind == "llama3":
        scaled |= {
            "rope_low_factor": number(rope, "low_freq_factor", 1.0),
            "rope_high_factor": number(rope, "high_freq_factor", 4.0),
            "rope_original_context": size(rope, "original_max_position_embeddings", 8192),
        }
    return found | scaled


def number(fields: Fields, name: str, default: float) -> float:
    value = default if fields.get(name) is None else fields[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"config.json: {name}", shortened(value), "a number")
    return float(value)


def activation(fields: Fields, name: str, default: str, spellings: Mapping[str, str]) -> str:
    value = default if fields.get(name) is None else fields[name]
    known = {ours: ours for ours in ACTIVATIONS if spellings is SPELLINGS} | dict(spellings)
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"config.json: {name}", shortened(value), f"one of {', '.join(known)}")
    return known[value]


def refuse(fields: Fields, name: str, value: bool, default: bool | None = None) -> None:
    if flag(fields, name, not value if default is None else default) == value:
        raise ConfigError(f"config.json: {name}", spelled_out(value), spelled_out(not value))


def refuse_unless(fields: Fields, name: str, value: int) -> None:
    if fields.get(name, value) not in (None, value):
        raise ConfigError(f"config.json: {name}", shortened(fields[name]), f"{value}")
