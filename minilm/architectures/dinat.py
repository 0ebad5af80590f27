"""DiNAT: each square attends to its neighbours, in some layers to those some squares apart.

Squares are made by convolutions that overlap. Names, shapes and defaults: huggingface/transformers
`models/dinat`.
"""

from __future__ import annotations

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import flag, number, size
from minilm.architectures.staged_vision import (
    IMAGES,
    Config,
    Map,
    Stage,
    Tensors,
    as_class,
    classifier,
    doubling,
    feed_forward,
    heads_of,
    inner_width,
    norms,
    plain,
    projections,
    tensors_of,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role
from minilm.ledger.symbols import as_polynomial

_PATCH, _SELF = components.PATCH_EMBEDDING, "attention.self."


def layout(config: Config) -> Layout:
    """The tensors of a class of DiNAT for a config.json."""
    each = doubling(config, (3, 4, 6, 5), 64)
    heads = heads_of(config, "num_heads", (2, 4, 8, 16), [stage.value for stage in each])
    base, channels, gain = each[0].value, size(config, "num_channels", 3), components.EMBEDDING_NORM
    half = as_polynomial(base // 2)
    body = tensors_of(
        "embeddings.",
        (
            Map("patch_embeddings.projection.0", _PATCH, (half, channels, 3, 3)),
            Map("patch_embeddings.projection.1", _PATCH, (d, half, 3, 3)),
            Map("norm", gain, (d,)),
        ),
    )
    for stage, count in zip(each, heads, strict=True):
        prefix, width = f"encoder.levels.{stage.number}.", stage.width
        body += _layers(config, f"{prefix}layers.{{i}}.", stage, count)
        if stage is not each[-1]:
            merged = (
                Map("reduction", _PATCH, (2 * width, width, 3, 3), bias=False),
                Map("norm", gain, (2 * width,)),
            )
            body += tensors_of(f"{prefix}downsample.", merged)
    last = each[-1].width
    body += tensors_of("", (Map("layernorm", components.FINAL_NORM, (last,)),))
    return as_class(config, "dinat", body, {IMAGES: classifier(last)}, symbols={"d": base})


def _layers(config: Config, prefix: str, stage: Stage, heads: int) -> Tensors:
    width, kernel = stage.width, size(config, "kernel_size", 7)
    maps = (
        *norms("layernorm_before layernorm_after", width),
        *projections(
            f"{_SELF}query {_SELF}key {_SELF}value attention.output.dense",
            width,
            bias=flag(config, "qkv_bias", True),
        ),
        *feed_forward(
            "intermediate.dense output.dense", width, inner_width(config, stage, default=3.0)
        ),
    )
    rows, part = 2 * kernel - 1, components.POSITION_EMBEDDING
    table = plain(f"{prefix}{_SELF}rpb", part, (heads, rows, rows), stage.depth, Role.ADDED)
    tensors = (*tensors_of(prefix, maps, stage.depth), table)
    if number(config, "layer_scale_init_value", 0.0) <= 0:
        return tensors
    name, part = f"{prefix}layer_scale_parameters", components.ATTENTION_OUTPUT_NORM
    return (*tensors, plain(name, part, (2, width), stage.depth, Role.SCALED))
