"""Inkling 2's text under the names of its files: parts of a layer attend to the outputs of earlier blocks.

Each query of that is a parameter; layers with full attention have three, for queries, keys and values. The
taps of their convolutions follow from the token. Names, shapes and defaults: huggingface/transformers
`models/inkling2`, and `conversion_mapping.py` for the names in files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minilm.architectures.building_blocks import E, Heads, L, d, layer_kinds, linear, norm
from minilm.architectures.config_fields import field_name, size
from minilm.architectures.decoder import Defaults, decoder, heads_and_layers
from minilm.architectures.moe import (
    LayerGroup,
    correction_bias,
    read_experts,
    stacked_experts,
)
from minilm.architectures.recurrent import TAPS, convolution, layers_of, within
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, ZERO, Polynomial, as_polynomial

Config = Mapping[str, Any]
_DEFAULTS = Defaults(
    201024, 48, (4608, 48, 8, 128), context=1048576, experts=(384, 8, 2304), window=1024
)
_SLIDES, _SEES_ALL = _KINDS = ("hybrid_sliding", "hybrid")
_BODY = "model.llm"
_BLOCK = f"{_BODY}.layers.{{i}}"
_ATTENTION = f"{_BLOCK}.attn"


def layout(config: Config) -> Layout:
    """The tensors of Inkling2ForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    kinds = layer_kinds(
        config, "layer_types", num_layers, _KINDS, lambda i: _KINDS[(i + 1) % 6 == 0]
    )
    taps = field_name(config, "conv_kernel_size", "sconv_kernel_size")
    attention, specs, state = _attention(config, kinds)
    part = components.RESIDUAL_STREAMS
    return decoder(
        {**config, "tie_word_embeddings": False},
        _DEFAULTS,
        heads,
        *attention,
        *convolution(f"{_BLOCK}.attn_sconv", d),
        *norm(f"{_BLOCK}.mlp_norm", components.FEED_FORWARD_NORM),
        *linear(f"{_BLOCK}.mlp.gate", E, d, components.ROUTER),
        *stacked_experts(
            f"{_BLOCK}.mlp.experts.w13_weight", f"{_BLOCK}.mlp.experts.w2_weight", LayerGroup()
        ),
        *convolution(f"{_BLOCK}.mlp_sconv", d),
        *_queries(kinds),
        Tensor(f"{_BODY}.attn_res.output_query", (d,), part, Role.SCALED),
        table=f"{_BODY}.embed",
        before=norm(f"{_BODY}.embed_norm", components.EMBEDDING_NORM, repeat=ONE),
        final_norm=f"{_BODY}.norm",
        head=f"{_BODY}.unembed",
        symbols={
            "z": size(config, taps, 4),
            **read_experts(
                config,
                layers=num_layers,
                total=field_name(config, "n_routed_experts", "num_local_experts"),
                width=field_name(config, "moe_intermediate_size", "intermediate_size"),
                defaults=_DEFAULTS.experts,
            ),
        },
        attention=specs,
        state=state + 2 * L * d * TAPS,
        mixing=_seen(kinds, size(config, "n_layers_per_attn_res_block", 6)) * 2 * d,
        buffers=correction_bias(f"{_BLOCK}.mlp.gate.bias", LayerGroup()),
        fields={
            "max_position_embeddings": field_name(
                config, "max_position_embeddings", "model_max_length"
            )
        },
    )


def _queries(kinds: Sequence[str]) -> Tensors:
    """Of the outputs of blocks: those of attention are numbered from the second layer."""
    part, later = components.RESIDUAL_STREAMS, kinds[1:]
    shapes: dict[str, tuple[Polynomial, ...]] = {_SLIDES: (d,), _SEES_ALL: (as_polynomial(3), d)}
    return (
        Tensor(f"{_BODY}.attn_res.mlp_queries.{{i}}", (d,), part, Role.SCALED, L),
        *(
            Tensor(
                f"{_BODY}.attn_res.attn_queries.{{i}}",
                shapes[kind],
                part,
                Role.SCALED,
                as_polynomial(later.count(kind)),
                [i for i, each in enumerate(later) if each == kind],
            )
            for kind in _KINDS
            if kind in later
        ),
    )


def _seen(kinds: Sequence[str], block: int) -> Polynomial:
    """States that all queries look at: those of the blocks before, and the one that is being made."""
    before = [-(-i // block) + 1 for i in range(len(kinds) + 1)]
    queries = [0, *(1 if kind == _SLIDES else 3 for kind in kinds[1:])]
    own = sum(number * seen for number, seen in zip(queries, before, strict=False))
    return as_polynomial(own + sum(before[1:]) + before[-1])


def _attention(config: Config, kinds: list[str]) -> tuple[Tensors, list[AttentionSpec], Polynomial]:
    """Of both kinds of layers: tensors, costs, and the states of the convolutions of keys and values."""
    window = size(
        config, field_name(config, "sliding_window_size", "sliding_window"), _DEFAULTS.window
    )
    extents = (window, size(config, "rel_extent", 1024))
    tensors: list[Tensor] = []
    specs, state = [], ZERO
    for kind, prefix, extent in zip(_KINDS, ("swa_", ""), extents, strict=True):
        group = layers_of(kinds, kind)
        if group is None:
            continue
        number = size(config, f"{prefix}num_attention_heads", 48)
        groups = size(config, f"{prefix}num_key_value_heads", 8)
        width = size(config, f"{prefix}head_dim", 128)
        heads = Heads({}, as_polynomial(number * width), as_polynomial(groups * width))
        own = (
            *_matrices(heads, number, width, size(config, "d_rel", 16), extent),
            *(_sliding(heads) if kind == _SLIDES else _full(heads, groups)),
        )
        tensors += within(group, *own)
        specs.append(heads.attention(layers=group.repeat, window=window if kind == _SLIDES else 0))
        state += 2 * group.repeat * heads.keys * TAPS
    return tuple(tensors), specs, state


def _matrices(heads: Heads, number: int, width: int, rank: int, extent: int) -> Tensors:
    name, many, gains = _ATTENTION, as_polynomial(number), components.ATTENTION_QK_NORM
    curves = (as_polynomial(rank), as_polynomial(extent))
    return (
        *linear(f"{name}.wq_du", heads.queries, d, components.ATTENTION_QUERY),
        *linear(f"{name}.wk_dv", heads.keys, d, components.ATTENTION_KEY),
        *linear(f"{name}.wv_dv", heads.keys, d, components.ATTENTION_VALUE),
        *linear(f"{name}.wr_du", number * curves[0], d, components.POSITION_EMBEDDING),
        Tensor(
            f"{name}.rel_logits_proj.proj",
            curves,
            components.POSITION_EMBEDDING,
            Role.MULTIPLIED,
            L,
            runs=number,
        ),
        Tensor(f"{name}.q_l2_clip.scale", (many, as_polynomial(width)), gains, Role.SCALED, L),
        Tensor(f"{name}.rel_l2_clip.scale", (many, curves[0]), gains, Role.SCALED, L),
        *linear(f"{name}.attn_sink_proj", many, d, components.ATTENTION_SINKS),
        *linear(f"{name}.gate_attn", heads.queries, d, components.ATTENTION_GATE),
        *linear(f"{name}.wo_ud", d, heads.queries, components.ATTENTION_OUTPUT),
    )


def _sliding(heads: Heads) -> Tensors:
    return (
        *norm(f"{_BLOCK}.attn_norm", components.ATTENTION_NORM),
        *(t for x in "kv" for t in convolution(f"{_ATTENTION}.{x}_sconv", heads.keys)),
    )


def _full(heads: Heads, groups: int) -> Tensors:
    part = components.CONVOLUTION
    return (
        *(t for x in "qkv" for t in norm(f"{_BLOCK}.{x}_input_norm", components.ATTENTION_NORM)),
        *(
            t
            for x in "kv"
            for t in (
                Tensor(
                    f"{_ATTENTION}.{x}_sconv.static_w", (TAPS, heads.keys), part, Role.SCALED, L
                ),
                Tensor(
                    f"{_ATTENTION}.{x}_sconv.weight_proj",
                    (groups * TAPS, d),
                    part,
                    Role.MULTIPLIED,
                    L,
                ),
            )
        ),
    )
