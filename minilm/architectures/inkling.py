"""Inkling's text as transformers stores it: short convolutions behind keys, values and each half of a layer.

A query adds a learned bias for each distance to its scores; sliding layers have heads of their own. The
router weighs the shared experts too. Names, shapes and defaults: huggingface/transformers `models/inkling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    E,
    Heads,
    L,
    d,
    layer_kinds,
    linear,
    m,
    norm,
    separate_attention,
)
from minilm.architectures.config_fields import (
    field_name,
    layer_numbers,
    size,
    whole_number_or_null,
)
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
    query_key_norms,
)
from minilm.architectures.moe import (
    LayerGroup,
    correction_bias,
    dense_feed_forward,
    read_experts,
    sparse_layers,
    split_layers,
    stacked_experts,
)
from minilm.architectures.recurrent import TAPS, convolution, layers_of, within
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, ZERO, Polynomial, as_polynomial

Config = Mapping[str, Any]
_DEFAULTS = Defaults(
    201024, 66, (6144, 64, 8, 128), 24576, 131072, experts=(256, 6, 3072), window=512
)
_KINDS = ("hybrid_sliding", "hybrid")


def layout(config: Config) -> Layout:
    """The tensors of InklingForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    local = layer_numbers(config, "local_layer_ids", [i for i in range(num_layers) if (i + 1) % 6])
    kinds = layer_kinds(config, "layer_types", num_layers, _KINDS, lambda i: _KINDS[i not in local])
    first = whole_number_or_null(config, "dense_mlp_idx", 0)
    split = split_layers(num_layers, sparse_layers(config, num_layers, lambda i: i >= first))
    taps = field_name(config, "conv_kernel_size", "sconv_kernel_size")
    symbols = {**split.symbols, "z": size(config, taps, 4)}
    dense = field_name(config, "intermediate_size", "dense_intermediate_size")
    # With that of the dense layers, the usual field is the experts'.
    own = "moe_intermediate_size" if dense == "intermediate_size" else "intermediate_size"
    width = _DEFAULTS.experts[2] if dense == "intermediate_size" else _DEFAULTS.feed_forward
    if split.experts:
        symbols |= read_experts(
            config,
            layers=split.expert_layers,
            total=field_name(config, "n_routed_experts", "num_local_experts"),
            width=own,
            defaults=(*_DEFAULTS.experts[:2], width),
        )
    context = field_name(config, "max_position_embeddings", "model_max_length")
    attention, specs, state = _attention(config, kinds)
    return decoder(
        {**config, "tie_word_embeddings": False},
        _DEFAULTS,
        heads,
        *pre_norms(),
        *attention,
        *convolution(f"{BLOCK}.attn_sconv.conv1d", d),
        *dense_feed_forward(MLP, split.dense),
        *within(split.dense, _scale(f"{MLP}.global_scale")),
        *_experts(split.experts, size(config, "n_shared_experts", 2)),
        *convolution(f"{BLOCK}.mlp_sconv.conv1d", d),
        before=norm("model.embed_tokens.embed_norm", components.EMBEDDING_NORM, repeat=ONE),
        symbols=symbols,
        attention=specs,
        state=state + 2 * L * d * TAPS,
        buffers=correction_bias(f"{MLP}.gate.e_score_correction_bias", split.experts),
        fields={"intermediate_size": dense, "max_position_embeddings": context},
    )


def _attention(config: Config, kinds: list[str]) -> tuple[Tensors, list[AttentionSpec], Polynomial]:
    """Of both kinds of layers: tensors, costs, and the states of the convolutions of keys and values."""
    window = size(
        config, field_name(config, "sliding_window_size", "sliding_window"), _DEFAULTS.window
    )
    extents = (window, size(config, "rel_extent", 1024))
    tensors: list[Tensor] = []
    specs, state = [], ZERO
    for kind, prefix, groups, extent in zip(_KINDS, ("swa_", ""), (16, 8), extents, strict=True):
        group = layers_of(kinds, kind)
        if group is None:
            continue
        number = size(config, f"{prefix}num_attention_heads", 64)
        width = size(config, f"{prefix}head_dim", 128)
        groups = size(config, f"{prefix}num_key_value_heads", groups)
        heads = Heads({}, as_polynomial(number * width), as_polynomial(groups * width))
        biases = _distances(number, size(config, "d_rel", 16), extent)
        tensors += within(group, *_matrices(heads, as_polynomial(width)), *biases)
        span = window if kind == _KINDS[0] else 0
        specs.append(heads.attention(layers=group.repeat, window=span))
        state += 2 * group.repeat * heads.keys * TAPS
    return tuple(tensors), specs, state


def _matrices(heads: Heads, width: Polynomial) -> Tensors:
    return (
        *separate_attention(ATTENTION, heads),
        *convolution(f"{ATTENTION}.k_sconv.conv1d", heads.keys),
        *convolution(f"{ATTENTION}.v_sconv.conv1d", heads.keys),
        *query_key_norms(widths=(width, width)),
    )


def _distances(heads: int, rank: int, extent: int) -> Tensors:
    """Each head mixes the same ``rank`` curves over distances."""
    part, name = components.POSITION_EMBEDDING, f"{ATTENTION}.rel_logits_proj.proj"
    curves = (as_polynomial(rank), as_polynomial(extent))
    return (
        *linear(f"{ATTENTION}.r_proj", as_polynomial(heads * rank), d, part),
        Tensor(name, curves, part, Role.MULTIPLIED, L, runs=heads),
    )


def _scale(name: str) -> Tensor:
    return Tensor(name, (ONE,), components.FEED_FORWARD_GATE, Role.SCALED, L)


def _experts(group: LayerGroup | None, shared: int) -> Tensors:
    """The shared ones are stacked as the others are, and have rows of the router."""
    if group is None:
        return ()
    number, part = as_polynomial(shared), components.SHARED_EXPERT
    shapes = {"gate_proj": (m, d), "up_proj": (m, d), "down_proj": (d, m)}
    return (
        *within(
            group,
            *linear(f"{MLP}.gate", E + number, d, components.ROUTER),
            _scale(f"{MLP}.gate.global_scale"),
            *(
                Tensor(f"{MLP}.shared_experts.{name}", (number, *shape), part, Role.MULTIPLIED, L)
                for name, shape in shapes.items()
            ),
        ),
        *stacked_experts(f"{MLP}.experts.gate_up_proj", f"{MLP}.experts.down_proj", group),
    )
