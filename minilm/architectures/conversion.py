"""Architectures that minilm also runs: what they add to their Layout, and which can represent a model.

Sizes, biases, ties and windows are read off the Layout that a config.json declares, and tensors are
matched by their components (`tensor_map`), so that an `Architecture` has only what a Layout leaves
open. A field of config.json that is not read changes nothing that this model computes. Counting imports
this file too: hence named tuples, which are created faster than dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from reprlib import repr as shortened
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.shared_fields import Fields
from minilm.config import ModelConfig
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role

UnsupportedField = tuple[str, str]  # a field of ModelConfig, and what it would have to be
Check = Callable[[ModelConfig], list[UnsupportedField]]

ALL_BIASES: dict[str, Any] = {
    "qkv_bias": True,
    "attention_output_bias": True,
    "feed_forward_bias": True,
}


class GgufGraph(NamedTuple):
    """What llama.cpp's graph for an architecture fixes, whatever a file says.

    ``unsupported_fields`` are those that it does not compute. ``adjacent_rotary``: RoPE rotates neighbouring
    elements, not halves of a head. ``stored_fields`` are of a model that it computes alike and whose tensors
    it asks for: with biases, or an untied head. ``head_dim`` and ``parallel_residual``: these keys are
    always there.
    """

    unsupported_fields: Check
    adjacent_rotary: bool = False
    stored_fields: Mapping[str, Any] = MappingProxyType({})
    head_dim: bool = False
    parallel_residual: bool = False


class Architecture(NamedTuple):
    """A model class of transformers that minilm runs too, one of its module's `ARCHITECTURES`.

    ``hf_fields`` are those of its config.json, but for `config_json`'s own; ``minilm_fields`` those of
    ModelConfig that the Layout leaves open. ``fused_qkv`` is the order of a fused matrix: all of query,
    then key, then value, or the three head by head. ``zero_biases`` are the fields of biases that it stores
    as zeros for a model without them.
    """

    model_type: str
    class_name: str
    layout: Callable[[Fields], Layout]
    unsupported_fields: Check
    hf_fields: Callable[[ModelConfig], dict[str, Any]]
    minilm_fields: Callable[[Fields], dict[str, Any]]
    gguf: GgufGraph
    fused_qkv: Literal["joined", "by_head"] = "joined"
    zero_biases: tuple[str, ...] = ()

    def stored_config(self, config: ModelConfig) -> ModelConfig:
        """The model that is written for ``config``: the same, or one with biases of zeros besides."""
        if not self.unsupported_fields(config):
            return config
        has_norm_bias = config.norm == "layernorm"
        added: dict[str, Any] = dict.fromkeys(self.zero_biases, True)
        if not has_norm_bias:
            added.pop("norm_bias", None)
        return replace(config, **added)

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """The content of its config.json."""
        return {
            "architectures": [self.class_name],
            "model_type": self.model_type,
            "vocab_size": config.vocab_size,
            "tie_word_embeddings": config.tied_embeddings,
            "initializer_range": config.init_std,
            "torch_dtype": "float32",
            "use_cache": True,
            **self.hf_fields(config),
        }

    def model_config(self, fields: Fields) -> ModelConfig:
        """minilm's configuration. Raises ConfigError for a field of config.json that it cannot follow."""
        return _model_config(self.layout, self.minilm_fields, fields)


class Importable(NamedTuple):
    """A model class of transformers whose models minilm runs once they are imported, one of `IMPORTABLE`.

    ``minilm_fields`` raises ConfigError for a field that minilm cannot follow. ``factors`` are what the
    tensors are multiplied by whose names in minilm end so.
    """

    model_type: str
    layout: Callable[[Fields], Layout]
    minilm_fields: Callable[[Fields], dict[str, Any]]
    factors: Callable[[Fields, ModelConfig], dict[str, float]] = lambda fields, config: {}

    def model_config(self, fields: Fields) -> ModelConfig:
        """minilm's configuration. Raises ConfigError for a field of config.json that it cannot follow."""
        return _model_config(self.layout, self.minilm_fields, fields)


def _model_config(
    layout: Callable[[Fields], Layout],
    minilm_fields: Callable[[Fields], dict[str, Any]],
    fields: Fields,
) -> ModelConfig:
    return ModelConfig(**declared_fields(layout(fields), fields) | minilm_fields(fields))


def exportable(config: ModelConfig) -> list[Architecture]:
    """The architectures that can represent ``config``, at least one, those without added biases first.

    Raises ConfigError naming the field in the way of the nearest.
    """
    candidates = [(each.unsupported_fields(config), each) for each in _architectures()]
    architectures = [each for unsupported, each in candidates if not unsupported]
    architectures += [
        each
        for unsupported, each in candidates
        if unsupported and not each.unsupported_fields(each.stored_config(config))
    ]
    if not architectures:
        unsupported, nearest = min(candidates, key=lambda candidate: len(candidate[0]))
        field, expected = unsupported[0]
        raise ConfigError(
            f"model.{field}",
            f"{getattr(config, field)}, which no stock architecture has with the other fields",
            f"{expected}, for {nearest.class_name}",
        )
    return architectures


def importable_for(fields: Fields) -> Architecture | Importable:
    """What a config.json is imported as. Raises ConfigError for what minilm does not run."""
    model_type = fields.get("model_type")
    entry = MODEL_TYPES.get(model_type) if isinstance(model_type, str) else None
    if entry is None or entry.runs:
        return architecture_for(fields)
    module = import_module(f"minilm.architectures.{entry.module}")
    for importable in getattr(module, "IMPORTABLE", ()):
        if importable.model_type == model_type:
            return cast("Importable", importable)
    if entry.missing:
        field, got = entry.missing
        raise ConfigError(f"config.json: {field}", got, f"what minilm computes, for {model_type}")
    return architecture_for(fields)


def architecture_for(fields: Fields) -> Architecture:
    """The architecture of a config.json. Raises ConfigError for one that minilm does not run."""
    model_type = fields.get("model_type")
    for architecture in _architectures():
        if architecture.model_type == model_type:
            return architecture
    known = ", ".join(name for name, entry in MODEL_TYPES.items() if entry.runs)
    raise ConfigError("config.json: model_type", shortened(model_type), f"one of {known}")


def _architectures() -> Iterator[Architecture]:
    """Those of MODEL_TYPES that minilm runs, in that order."""
    for model_type, entry in MODEL_TYPES.items():
        if entry.runs:
            module = import_module(f"minilm.architectures.{entry.module}")
            yield from (a for a in module.ARCHITECTURES if a.model_type == model_type)


def declared_fields(layout: Layout, fields: Fields) -> dict[str, Any]:
    """The fields of ModelConfig that follow from the tensors that a config.json declares."""
    symbols = layout.symbols
    declared = {tensor.component for tensor in layout.tensors}
    biased = {tensor.component for tensor in layout.tensors if tensor.role is Role.ADDED}
    qkv = {components.ATTENTION_QUERY, components.ATTENTION_QUERY_KEY_VALUE}
    return {
        "vocab_size": symbols["V"],
        "context_length": layout.context_length,
        "num_layers": symbols["L"],
        "d_model": symbols["d"],
        "num_heads": symbols["h"],
        "num_kv_heads": symbols["g"],
        "head_dim": symbols["k"],
        "d_feed_forward": symbols["f"],
        "position": "learned" if components.POSITION_EMBEDDING in declared else "rope",
        "qkv_bias": bool(qkv & biased),
        "attention_output_bias": components.ATTENTION_OUTPUT in biased,
        "feed_forward_bias": components.FEED_FORWARD_DOWN in biased,
        "qk_norm": components.ATTENTION_QK_NORM in declared,
        "tied_embeddings": bool(layout.ties),
        "sliding_window": _window(layout, fields),
    }


def _window(layout: Layout, fields: Fields) -> int:
    """The window of all layers; ConfigError where some slide and some do not."""
    windows = {kind.window for kind in layout.attention}
    if len(windows) == 1:
        return windows.pop()
    is_list = fields.get("layer_types") is not None
    raise ConfigError(
        f"config.json: {'layer_types' if is_list else 'max_window_layers'}",
        "windows in some layers only",
        "in all of them or in none",
    )


def requires(**expected: Any) -> Check:
    """Fields and the values they must have; a tuple where there are several."""

    def check(config: ModelConfig) -> list[UnsupportedField]:
        return [
            (name, " or ".join(map(_as_text, values)))
            for name, expected_values in expected.items()
            for values in [
                expected_values if isinstance(expected_values, tuple) else (expected_values,)
            ]
            if getattr(config, name) not in values
        ]

    return check


def all_of(*checks: Check) -> Check:
    """Every check's unsupported fields, in order."""
    return lambda config: [field for check in checks for field in check(config)]


def ungrouped_heads(config: ModelConfig) -> list[UnsupportedField]:
    """A key and a value for each query head."""
    is_same = config.num_kv_heads == config.num_heads
    return [] if is_same else [("num_kv_heads", f"num_heads, {config.num_heads}")]


def heads_fill_width(config: ModelConfig) -> list[UnsupportedField]:
    """Heads of d_model / num_heads elements."""
    fills = config.num_heads * config.head_dim == config.d_model
    return [] if fills else [("head_dim", "d_model / num_heads")]


def one_attention_bias(config: ModelConfig) -> list[UnsupportedField]:
    """One field for the biases of all projections of attention."""
    return _same_as_qkv_bias(config, "attention_output_bias")


def one_bias(config: ModelConfig) -> list[UnsupportedField]:
    """One field for the biases of all matrices."""
    return _same_as_qkv_bias(config, "feed_forward_bias")


def _same_as_qkv_bias(config: ModelConfig, name: str) -> list[UnsupportedField]:
    is_same = getattr(config, name) == config.qkv_bias
    return [] if is_same else [(name, f"{_as_text(config.qkv_bias)}, as qkv_bias")]


def full_rotary(config: ModelConfig) -> list[UnsupportedField]:
    """No partial RoPE."""
    is_full = config.rotary_dim == config.head_dim
    return [] if is_full else [("rotary_dim", f"head_dim, {config.head_dim}")]


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def all_tokens_in_view(config: ModelConfig) -> list[UnsupportedField]:
    """No window, or one that the context does not exceed."""
    slides = 0 < config.sliding_window < config.context_length
    return [("sliding_window", "0 or the whole context")] if slides else []


NO_EXTRAS = requires(ngram=1, convolution=0)
STANDARD_BLOCK = all_of(NO_EXTRAS, full_rotary, requires(parallel_residual=False))
LAYERNORM = requires(norm="layernorm", norm_bias=True, feed_forward=("gelu", "gelu_tanh", "relu2"))
UNSCALED_OR_LINEAR = requires(rope_scaling=("none", "linear"))
# The graphs of llama.cpp that are alike but for the tensors they read; GELU is computed by tanh in all.
GELU_GRAPH = all_of(
    requires(feed_forward=("gelu", "gelu_tanh")), all_tokens_in_view, UNSCALED_OR_LINEAR
)
LLAMA_GRAPH = all_of(requires(feed_forward="swiglu"), all_tokens_in_view)
RMSNORM = requires(norm="rmsnorm", feed_forward=("swiglu", "geglu"), position="rope")
