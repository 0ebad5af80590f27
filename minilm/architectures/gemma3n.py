"""Gemma 3n and Gemma 4, the language models, as transformers stores them: an embedding for every layer.

The last layers take keys and values of earlier ones. Gemma 3n has A residual streams (AltUp) and a
low-rank path beside attention (LAuReL), and its layers may differ in width. Gemma 4's heads are wider
where attention is full, its layers have a scalar in a buffer, and may have experts beside the
feed-forward. Names, shapes and defaults: huggingface/transformers
`models/{gemma3n,gemma4,gemma4_unified}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import (
    E,
    Heads,
    L,
    d,
    f,
    g,
    gated_feed_forward,
    h,
    k,
    layer_kinds,
    linear,
    norm,
    window_size,
)
from minilm.architectures.config_fields import (
    flag,
    is_version_4,
    is_whole_number,
    layers,
    optional_size,
    size,
    whole_number,
)
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    post_norms,
    pre_norms,
)
from minilm.architectures.moe import (
    LayerGroup,
    group_of,
    read_experts,
    router,
    stacked_experts,
)
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import ONE, ZERO, Polynomial, as_polynomial, symbol

A, G, K, U, p = (symbol(letter) for letter in "AGKUp")
low_rank = symbol("l")

_KINDS = ("sliding_attention", "full_attention")
_GEMMA3N = Defaults(262400, 35, (2048, 8, 2, 256), 16384, 32768, tied=True, window=512)
_GEMMA4 = {
    "gemma4_text": Defaults(262144, 30, (2304, 8, 4, 256), 9216, 131072, tied=True, window=512),
    "gemma4_unified_text": Defaults(
        262144, 30, (2304, 8, 4, 256), 9216, 262144, tied=True, window=1024
    ),
}


@dataclass(frozen=True)
class _Attention:
    """A kind of layers, its key/value heads and head width; ``own``: it has keys and values."""

    kind: str
    layers: list[int]
    groups: Polynomial
    width: Polynomial
    own: bool


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Gemma3n and Gemma4ForCausalLM for a config.json."""
    if config["model_type"] == "gemma3n_text":
        return _gemma3n(config)
    return _gemma4(config)


def _gemma3n(config: Mapping[str, Any]) -> Layout:
    fields = {**config, "intermediate_size": None}
    heads, num_layers = heads_and_layers(config, _GEMMA3N)
    kinds = layer_kinds(
        config, "layer_types", num_layers, _KINDS, lambda i: _KINDS[(i + 1) % 5 == 0]
    )
    parts = _attention_parts(config, kinds, 15, dict.fromkeys(_KINDS, (g, k)))
    widths = _widths(config, num_layers)
    if len(set(widths)) == 1:
        fields["intermediate_size"] = widths[0]
    streams = layers(config, "altup_num_inputs", 4)  # each has tensors of its own, as a layer has
    return decoder(
        fields,
        _GEMMA3N,
        heads,
        *_norms(),
        *_attention(config, parts, num_layers, all_keys=is_version_4(config)),
        *_feed_forwards(widths),
        *_altup(),
        *_per_layer_block(),
        before=(*_per_layer_inputs(), *_stream_projections(streams)),
        symbols={
            "U": size(config, "vocab_size_per_layer_input", 262144),
            "p": size(config, "hidden_size_per_layer_input", 256),
            "A": streams,
            "l": size(config, "laurel_rank", 64),
        },
        attention=_specs(config, parts, num_layers, _GEMMA3N.window),
        mixing=L * A * A * d,
    )


def _gemma4(config: Mapping[str, Any]) -> Layout:
    defaults = _GEMMA4[config["model_type"]]
    heads, num_layers = heads_and_layers(config, defaults)
    kinds = layer_kinds(
        config, "layer_types", num_layers, _KINDS, lambda i: _KINDS[(i + 1) % 6 == 0]
    )
    kinds = [*kinds[:-1], _KINDS[1]]  # the last layer is made full
    same_keys = flag(config, "attention_k_eq_v", False)
    width, groups = _full_attention(config, heads, kinds, same_keys)
    symbols = {"K": width, "G": groups}
    is_unified = config["model_type"] == "gemma4_unified_text"
    per_layer = 0 if is_unified else whole_number(config, "hidden_size_per_layer_input", 256)
    if per_layer:
        symbols |= {"U": size(config, "vocab_size_per_layer_input", 262144), "p": per_layer}
    sizes = {
        _KINDS[0]: (g, k),
        _KINDS[1]: (
            g if groups == heads.symbols["g"] else G,
            k if width == heads.symbols["k"] else K,
        ),
    }
    parts = _attention_parts(config, kinds, 0, sizes)
    shared = group_of([i for part in parts if not part.own for i in part.layers], num_layers)
    has_experts = not is_unified and flag(config, "enable_moe_block", False)
    if has_experts:
        symbols |= read_experts(
            config, layers=num_layers, active="top_k_experts", defaults=(0, None, 0)
        )
    is_wide = flag(config, "use_double_wide_mlp", False) and shared is not None
    own = group_of([i for part in parts if part.own for i in part.layers], num_layers)
    wide = () if shared is None else _mlp(2 * f, shared)
    return decoder(
        config,
        defaults,
        heads,
        *_norms(),
        *_attention(config, parts, num_layers, same_keys=same_keys),
        *((*_mlp(f, own or LayerGroup()), *wide) if is_wide else gated_feed_forward(MLP)),
        *(_experts() if has_experts else ()),
        *(_per_layer_block() if per_layer else ()),
        before=_per_layer_inputs() if per_layer else (),
        symbols=symbols,
        attention=_specs(config, parts, num_layers, defaults.window),
        buffers=(
            Tensor(f"{BLOCK}.layer_scalar", (ONE,), components.FEED_FORWARD_NORM, Role.SCALED, L),
        ),
    )


def _norms() -> tuple[Tensor, ...]:
    return (
        *pre_norms(feed_forward=f"{BLOCK}.pre_feedforward_layernorm"),
        *post_norms(f"{BLOCK}.post_attention_layernorm", f"{BLOCK}.post_feedforward_layernorm"),
    )


def _attention_parts(
    config: Mapping[str, Any],
    kinds: Sequence[str],
    default_shared: int,
    sizes: Mapping[str, tuple[Polynomial, Polynomial]],
) -> list[_Attention]:
    """The layers of each kind, with keys and values of their own and, from some layer on, without."""
    first = len(kinds) - whole_number(config, "num_kv_shared_layers", default_shared)
    parts = []
    for kind in _KINDS:
        for own in (True, False):
            chosen = [i for i, each in enumerate(kinds) if each == kind and (i < first) == own]
            if chosen:
                parts.append(_Attention(kind, chosen, *sizes[kind], own))
    return parts


def _attention(
    config: Mapping[str, Any],
    parts: Sequence[_Attention],
    num_layers: int,
    *,
    same_keys: bool = False,
    all_keys: bool = False,
) -> tuple[Tensor, ...]:
    """With ``same_keys`` full attention takes its keys as values.

    With ``all_keys`` layers that share those of others have matrices for their own too, which nothing reads.
    """
    bias = flag(config, "attention_bias", False)
    tensors: list[Tensor] = []
    for part in parts:
        group = group_of(part.layers, num_layers)
        assert group is not None
        repeat, at = group.repeat, group.layers

        def matrix(
            name: str,
            outputs: Polynomial,
            inputs: Polynomial,
            component: str,
            repeat: Polynomial = repeat,
            at: Sequence[int] | None = at,
        ) -> tuple[Tensor, ...]:
            full = f"{ATTENTION}.{name}"
            return linear(full, outputs, inputs, component, bias=bias, repeat=repeat, layers=at)

        def head_norm(
            name: str,
            width: Polynomial = part.width,
            repeat: Polynomial = repeat,
            at: Sequence[int] | None = at,
        ) -> tuple[Tensor, ...]:
            qk_norm = components.ATTENTION_QK_NORM
            return norm(f"{ATTENTION}.{name}", qk_norm, width=width, repeat=repeat, layers=at)

        keys = part.groups * part.width
        tensors += matrix("q_proj", h * part.width, d, components.ATTENTION_QUERY)
        tensors += head_norm("q_norm")
        if part.own or all_keys:
            tensors += matrix("k_proj", keys, d, components.ATTENTION_KEY)
            tensors += head_norm("k_norm")
            if not same_keys or part.kind == _KINDS[0]:
                tensors += matrix("v_proj", keys, d, components.ATTENTION_VALUE)
        tensors += matrix("o_proj", d, h * part.width, components.ATTENTION_OUTPUT)
    return tuple(tensors)


def _specs(
    config: Mapping[str, Any], parts: Sequence[_Attention], num_layers: int, default: int
) -> list[AttentionSpec]:
    window = window_size(config, default)
    if config.get("use_bidirectional_attention") == "all":
        window = window // 2 + 1
    specs = []
    for part in parts:
        group = group_of(part.layers, num_layers)
        assert group is not None
        width = h * part.width
        cache = 2 * part.groups * part.width if part.own else ZERO
        span = window if part.kind == _KINDS[0] else 0
        specs.append(AttentionSpec(group.repeat, cache, width, width, span))
    return specs


def _full_attention(
    config: Mapping[str, Any], heads: Heads, kinds: Sequence[str], same_keys: bool
) -> tuple[int, int]:
    """Head width and key/value heads of full attention: `per_layer_config`, or two fields for all of it."""
    full = [i for i, kind in enumerate(kinds) if kind == _KINDS[1]]
    listed = config.get("per_layer_config")
    if listed is None:
        own = optional_size(config, "num_global_key_value_heads") if same_keys else None
        return size(config, "global_head_dim", 512), own or heads.symbols["g"]
    problem = ConfigError(
        "config.json: per_layer_config",
        shortened(listed),
        "the same head_dim and num_key_value_heads for each layer of full attention",
    )
    if not isinstance(listed, Mapping) or not all(isinstance(v, Mapping) for v in listed.values()):
        raise problem
    if not all(is_whole_number(str(i)) for i in listed):
        raise problem
    by_layer = {int(i): dict(overrides) for i, overrides in listed.items()}
    chosen = [by_layer.get(i, {}) for i in full]
    others = [overrides for i, overrides in by_layer.items() if i not in full and overrides]
    if others or any(each != chosen[0] for each in chosen):
        raise problem
    overrides = chosen[0]
    if not overrides.keys() <= {"head_dim", "num_key_value_heads"}:
        raise problem
    width = size(overrides, "head_dim", heads.symbols["k"])
    return width, size(overrides, "num_key_value_heads", heads.symbols["g"])


def _mlp(width: Polynomial, group: LayerGroup) -> tuple[Tensor, ...]:
    return gated_feed_forward(MLP, width=width, repeat=group.repeat, layers=group.layers)


def _widths(config: Mapping[str, Any], num_layers: int) -> list[int]:
    listed = config.get("intermediate_size")
    if not isinstance(listed, list):
        return [size(config, "intermediate_size", _GEMMA3N.feed_forward)] * num_layers
    if len(listed) != num_layers:
        raise ConfigError(
            "config.json: intermediate_size", shortened(listed), f"{num_layers} numbers"
        )
    return [size({"intermediate_size": width}, "intermediate_size") for width in listed]


def _feed_forwards(widths: Sequence[int]) -> tuple[Tensor, ...]:
    if len(set(widths)) == 1:
        return gated_feed_forward(MLP)
    tensors: list[Tensor] = []
    for width in sorted(set(widths)):
        chosen = [i for i, each in enumerate(widths) if each == width]
        group = group_of(chosen, len(widths))
        assert group is not None
        tensors += _mlp(as_polynomial(width), group)
    return tuple(tensors)


def _altup() -> tuple[Tensor, ...]:
    """AltUp predicts all streams and corrects them by the one that is computed; LAuReL is a residual path."""
    part, altup, laurel = components.RESIDUAL_STREAMS, f"{BLOCK}.altup", f"{BLOCK}.laurel"
    return (
        Tensor(f"{altup}.correct_output_scale", (d,), part, Role.SCALED, L),
        *linear(f"{altup}.correction_coefs", A, A, part),
        *linear(f"{altup}.prediction_coefs", A * A, A, part),
        *(replace(each, runs=2) for each in linear(f"{altup}.modality_router", A, d, part)),
        *norm(f"{altup}.router_norm", part),
        *linear(f"{laurel}.linear_left", low_rank, d, part),
        *linear(f"{laurel}.linear_right", d, low_rank, part),
        *norm(f"{laurel}.post_laurel_norm", part),
    )


def _stream_projections(streams: int) -> tuple[Tensor, ...]:
    names = ("altup_projections", "altup_unembed_projections")
    numbered = [f"model.{name}.{i}" for name in names for i in range(streams - 1)]
    part = components.RESIDUAL_STREAMS
    return tuple(t for name in numbered for t in linear(name, d, d, part, repeat=ONE))


def _per_layer_inputs() -> tuple[Tensor, ...]:
    """The tables of all layers side by side, and what is added to them from the first hidden state."""
    table, part = "model.embed_tokens_per_layer.weight", components.PER_LAYER_INPUT
    return (
        Tensor(table, (U, L * p), components.PER_LAYER_EMBEDDING, Role.LOOKED_UP),
        *linear("model.per_layer_model_projection", L * p, d, part, repeat=ONE),
        *norm("model.per_layer_projection_norm", part, width=p, repeat=ONE),
    )


def _per_layer_block() -> tuple[Tensor, ...]:
    part = components.PER_LAYER_INPUT
    return (
        *linear(f"{BLOCK}.per_layer_input_gate", p, d, part),
        *linear(f"{BLOCK}.per_layer_projection", d, p, part),
        *norm(f"{BLOCK}.post_per_layer_input_norm", part),
    )


def _experts() -> tuple[Tensor, ...]:
    scale, by_expert = f"{BLOCK}.router.scale", f"{BLOCK}.router.per_expert_scale"
    experts = (f"{BLOCK}.experts.gate_up_proj", f"{BLOCK}.experts.down_proj")
    return (
        Tensor(scale, (d,), components.ROUTER, Role.SCALED, L),
        Tensor(by_expert, (E,), components.ROUTER, Role.SCALED, L),
        *router(f"{BLOCK}.router.proj", LayerGroup()),
        *stacked_experts(*experts, LayerGroup()),
        *norm(f"{BLOCK}.post_feedforward_layernorm_1", components.FEED_FORWARD_OUTPUT_NORM),
        *norm(f"{BLOCK}.post_feedforward_layernorm_2", components.FEED_FORWARD_OUTPUT_NORM),
        *norm(f"{BLOCK}.pre_feedforward_layernorm_2", components.FEED_FORWARD_NORM),
    )
