"""Inkling 2's text under the names of its files: parts of a layer attend to the outputs of earlier blocks.

Each query of that is a parameter; layers with full attention have three, for queries, keys and values. The
taps of their convolutions follow from the token. In the looped Inkling 2, layers in the middle run several
times, each time with a cache of their own, and mix in what the blocks put out the time before. Rows of the
head behind the last token fill it up to the vocabulary in files, and are counted. Names, shapes and
defaults: huggingface/transformers `models/{inkling2,inkling2_loop}`, and `conversion_mapping.py` for the
names in files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from minilm.architectures.building_blocks import E, Heads, L, d, layer_kinds, linear, norm
from minilm.architectures.config_fields import field_name, size, sub_config
from minilm.architectures.decoder import Defaults, decoder, heads_and_layers
from minilm.architectures.moe import (
    LayerGroup,
    correction_bias,
    group_of,
    groups_by_value,
    read_experts,
    stacked_experts,
)
from minilm.architectures.recurrent import TAPS, convolution, within
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, ZERO, Polynomial, as_polynomial, symbol

Config = Mapping[str, Any]
_DEFAULTS = {
    "inkling2_text": Defaults(
        201024, 48, (4608, 48, 8, 128), context=1048576, experts=(384, 8, 2304), window=1024
    ),
    "inkling2_loop_text": Defaults(
        201024, 24, (2304, 24, 8, 128), context=1048576, experts=(128, 8, 1152), window=1024
    ),
}
_SLIDES, _SEES_ALL = _KINDS = ("hybrid_sliding", "hybrid")
RANK = symbol("r")
_BODY = "model.llm"
_BLOCK = f"{_BODY}.layers.{{i}}"
_ATTENTION = f"{_BLOCK}.attn"


class _Loop(NamedTuple):
    """The layers that run several times, how often, and the rank of the gates of what is mixed in."""

    layers: range
    passes: int
    rank: int


_NO_LOOP = _Loop(range(0), 1, 1)


def layout(config: Config) -> Layout:
    """The tensors of Inkling2 and Inkling2LoopForCausalLM for a config.json."""
    defaults = _DEFAULTS[config["model_type"]]
    heads, num_layers = heads_and_layers(config, defaults)
    kinds = layer_kinds(
        config, "layer_types", num_layers, _KINDS, lambda i: _KINDS[(i + 1) % 6 == 0]
    )
    loop = _loop(config) if config["model_type"] == "inkling2_loop_text" else _NO_LOOP
    runs = [loop.passes if i in loop.layers else 1 for i in range(num_layers)]
    taps = field_name(config, "conv_kernel_size", "sconv_kernel_size")
    attention, specs, state = _attention(config, kinds, runs)
    block = size(config, "n_layers_per_attn_res_block", 6)
    part = components.RESIDUAL_STREAMS
    result = decoder(
        {**config, "tie_word_embeddings": False},
        defaults,
        heads,
        *attention,
        *_in_runs(
            runs,
            *convolution(f"{_BLOCK}.attn_sconv", d),
            *norm(f"{_BLOCK}.mlp_norm", components.FEED_FORWARD_NORM),
            *linear(f"{_BLOCK}.mlp.gate", E, d, components.ROUTER),
            *stacked_experts(
                f"{_BLOCK}.mlp.experts.w13_weight", f"{_BLOCK}.mlp.experts.w2_weight", LayerGroup()
            ),
            *convolution(f"{_BLOCK}.mlp_sconv", d),
        ),
        *_messages(loop, num_layers),
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
                defaults=defaults.experts,
            ),
            **({"r": loop.rank} if loop.layers else {}),
        },
        attention=specs,
        state=state + 2 * _total(runs) * d * TAPS,
        mixing=(_seen(kinds, runs, block) + _seen_by_messages(loop, block)) * 2 * d,
        buffers=correction_bias(f"{_BLOCK}.mlp.gate.bias", LayerGroup()),
        fields={
            "max_position_embeddings": field_name(
                config, "max_position_embeddings", "model_max_length"
            )
        },
    )
    return replace(result, optional_prefix=f"{_BODY}.")


def _loop(config: Config) -> _Loop:
    inside = sub_config(config, "loop_config")

    def read(name: str, short: str, default: int) -> int:
        return size(inside, short) if inside.get(short) is not None else size(config, name, default)

    start = read("loop_layer_index_start", "core_start", 6)
    end = read("loop_layer_index_end", "core_end", 18)
    if end <= start:
        raise ConfigError("config.json: loop_layer_index_end", f"{end}", f"more than {start}")
    passes = read("loop_num_passes", "num_passes", 3)
    return _Loop(range(start, end), passes, read("loop_gate_rank", "gate_rank", 64))


def _total(runs: Sequence[int]) -> Polynomial:
    """How many layers run: L, where each does once."""
    return L if sum(runs) == len(runs) else as_polynomial(sum(runs))


def _in_runs(runs: Sequence[int], *tensors: Tensor) -> Tensors:
    """The tensors of all layers, apart by how often a layer runs."""
    return tuple(
        replace(each, runs=times * each.runs)
        for times, group in groups_by_value(runs).items()
        for each in within(group, *tensors)
    )


def _messages(loop: _Loop, num_layers: int) -> Tensors:
    """Of each layer of the loop: queries for what the time before put out, and gates that mix it in."""
    if not loop.layers:
        return ()
    part, rows = components.RESIDUAL_STREAMS, as_polynomial(2 * len(loop.layers))
    shapes = {"down": (RANK, 2 * d), "gain": (d, RANK), "forget": (d, RANK)}
    names = ("middle_cycle_cross_pass_queries", "middle_cycle_cross_pass_kv_queries")
    gates = within(
        group_of(range(loop.layers.start, min(loop.layers.stop, num_layers)), num_layers),
        *(
            Tensor(f"{_BLOCK}.controllers.{of}.{name}_weight", shape, part, Role.MULTIPLIED, L)
            for of in ("attn", "k", "v", "mlp")
            for name, shape in shapes.items()
        ),
    )
    return (
        *(replace(each, runs=loop.passes - 1) for each in gates),
        *(Tensor(f"{_BODY}.{name}", (rows, d), part, Role.SCALED) for name in names),
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


def _seen(kinds: Sequence[str], runs: Sequence[int], block: int) -> Polynomial:
    """States that all queries look at: those of the blocks before, and the one that is being made."""
    before = [-(-i // block) + 1 for i in range(len(kinds) + 1)]
    queries = [0, *(1 if kind == _SLIDES else 3 for kind in kinds[1:])]
    own = sum(
        times * (number * seen + after)
        for times, number, seen, after in zip(runs, queries, before, before[1:], strict=False)
    )
    return as_polynomial(own + before[-1])


def _seen_by_messages(loop: _Loop, block: int) -> Polynomial:
    """States that each layer's four queries look at in all passes but the first: the loop's own blocks."""
    blocks = -(-loop.layers.stop // block) - -(-loop.layers.start // block)
    return as_polynomial(4 * len(loop.layers) * blocks * (loop.passes - 1))


def _attention(
    config: Config, kinds: Sequence[str], runs: Sequence[int]
) -> tuple[Tensors, list[AttentionSpec], Polynomial]:
    """Of both kinds of layers: tensors, costs, and the states of the convolutions of keys and values."""
    defaults = _DEFAULTS[config["model_type"]]
    window = size(
        config, field_name(config, "sliding_window_size", "sliding_window"), defaults.window
    )
    extents = (window, size(config, "rel_extent", 1024))
    tensors: list[Tensor] = []
    specs, state = [], ZERO
    groups_of = groups_by_value(list(zip(kinds, runs, strict=True)))
    for kind, prefix, extent in zip(_KINDS, ("swa_", ""), extents, strict=True):
        number = size(config, f"{prefix}num_attention_heads", defaults.heads[1])
        groups = size(config, f"{prefix}num_key_value_heads", 8)
        width = size(config, f"{prefix}head_dim", 128)
        heads = Heads({}, as_polynomial(number * width), as_polynomial(groups * width))
        own = (
            *_matrices(heads, number, width, size(config, "d_rel", 16), extent),
            *(_sliding(heads) if kind == _SLIDES else _full(heads, groups)),
        )
        for (each, times), group in groups_of.items():
            if each != kind:
                continue
            tensors += (replace(t, runs=times * t.runs) for t in within(group, *own))
            repeat = times * group.repeat
            specs.append(heads.attention(layers=repeat, window=window if kind == _SLIDES else 0))
            state += 2 * repeat * heads.keys * TAPS
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
