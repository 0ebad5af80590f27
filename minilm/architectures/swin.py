"""Swin and its kin: attention in windows that shift, stages that merge four squares and double the width.

Swin 2 scales cosines of queries and keys and computes its positions; Donut's ends without a norm. Names,
shapes and defaults: huggingface/transformers `models/{swin,swinv2,donut}`.
"""

from __future__ import annotations

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import flag, size
from minilm.architectures.staged_vision import (
    IMAGES,
    MASKED_IMAGES,
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
    masked_images,
    norms,
    plain,
    projections,
    tensors_of,
)
from minilm.architectures.vit import sides
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role
from minilm.ledger.symbols import ONE

_BLOCK = "encoder.layers.{s}.blocks.{i}."
_ATTENTION = "attention.self."
_INDEX = "relative_position_index"
_POSITION_WIDTH = 512  # of the network that computes Swin 2's positions


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family = config["model_type"]
    is_donut = family == "donut-swin"
    prefix = "donut" if is_donut else family
    each = doubling(config, (2, 2, 6, 2))
    heads = heads_of(config, "num_heads", (3, 6, 12, 24), [stage.value for stage in each])
    layers, positions = _layers(config, each, heads)
    last = each[-1].width
    classes = {IMAGES: classifier(last)}
    final: Tensors = ()
    if not is_donut:
        final = tensors_of("", (Map("layernorm", components.FINAL_NORM, (last,)),))
        classes[MASKED_IMAGES] = masked_images(config, prefix, last)
    block = _BLOCK.replace("{s}", "{i}") + _ATTENTION
    return as_class(
        config,
        prefix,
        (*_embeddings(config), *layers, *final),
        classes,
        symbols={"d": each[0].value},
        buffers=positions if is_donut else (),
        ignored=() if is_donut else (block + _INDEX, block + "relative_coords_table"),
    )


def _embeddings(config: Config) -> Tensors:
    patch, picture = sides(config, "patch_size", 4), sides(config, "image_size", 224)
    projection = Map(
        "patch_embeddings.projection",
        components.PATCH_EMBEDDING,
        (d, size(config, "num_channels", 3), *patch),
    )
    gain = Map("norm", components.EMBEDDING_NORM, (d,))
    tensors = tensors_of("embeddings.", (projection, gain))
    if not flag(config, "use_absolute_embeddings", False):
        return tensors
    rows = (picture[0] // patch[0]) * (picture[1] // patch[1])
    rows += config["model_type"] != "swin"  # the others have one for a class, which they have not
    part = components.POSITION_EMBEDDING
    name = "embeddings.position_embeddings"
    return (*tensors, plain(name, part, (1, rows, d), role=Role.ADDED))


def _layers(config: Config, each: list[Stage], heads: list[int]) -> tuple[Tensors, Tensors]:
    """The stages' tensors; and each block's index of positions, which only Donut's files hold."""
    is_second = config["model_type"] == "swinv2"
    tensors: Tensors = ()
    buffers: Tensors = ()
    area = size(config, "window_size", 7) ** 2
    for stage, count in zip(each, heads, strict=True):
        prefix = _BLOCK.replace("{s}", f"{stage.number}")
        tensors += tensors_of(prefix, _block(config, stage), stage.depth)
        tensors += _positions(config, prefix + _ATTENTION, stage, count)
        index, part = prefix + _ATTENTION + _INDEX, components.POSITION_EMBEDDING
        buffers += (plain(index, part, (area, area), stage.depth),)
        if stage is not each[-1]:
            width = stage.width
            gathered = (2 if is_second else 4) * width
            merged = (
                Map("reduction", components.PATCH_EMBEDDING, (2 * width, 4 * width), bias=False),
                Map("norm", components.PATCH_EMBEDDING, (gathered,)),
            )
            tensors += tensors_of(f"encoder.layers.{stage.number}.downsample.", merged)
    return tensors, buffers


def _block(config: Config, stage: Stage) -> tuple[Map, ...]:
    width, bias = stage.width, flag(config, "qkv_bias", True)
    names = f"{_ATTENTION}query {_ATTENTION}key {_ATTENTION}value attention.output.dense"
    attention = projections(names, width, bias=bias)
    if config["model_type"] == "swinv2":
        attention = tuple(
            each._replace(bias=False) if each.name.endswith("key") else each for each in attention
        )
    return (
        *norms("layernorm_before layernorm_after", width),
        *attention,
        *feed_forward("intermediate.dense output.dense", width, inner_width(config, stage)),
    )


def _positions(config: Config, prefix: str, stage: Stage, heads: int) -> Tensors:
    part, window = components.POSITION_EMBEDDING, size(config, "window_size", 7)
    if config["model_type"] != "swinv2":
        table = f"{prefix}relative_position_bias_table"
        return (plain(table, part, ((2 * window - 1) ** 2, heads), stage.depth, Role.ADDED),)
    scale = plain(
        f"{prefix}logit_scale",
        components.ATTENTION_QK_NORM,
        (heads, ONE, ONE),
        stage.depth,
        Role.SCALED,
    )
    inner = _POSITION_WIDTH
    network = (
        Map("continuous_position_bias_mlp.0", part, (inner, 2)),
        Map("continuous_position_bias_mlp.2", part, (heads, inner), bias=False),
    )
    return (scale, *tensors_of(prefix, network, stage.depth))
