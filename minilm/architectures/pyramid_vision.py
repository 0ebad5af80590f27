"""Pyramids of stages with widths of their own: SegFormer, PVT 1 and 2, PoolFormer.

Keys and values are of a reduced picture; PoolFormer averages squares in the place of attention. Names,
shapes and defaults: huggingface/transformers `models/{segformer,pvt,pvt_v2,poolformer}`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minilm.architectures.config_fields import flag, layers, size
from minilm.architectures.staged_vision import (
    IMAGES,
    Config,
    Map,
    Stage,
    Tensors,
    as_class,
    classifier,
    depths,
    feed_forward,
    heads_of,
    inner_width,
    layer_scales,
    norms,
    per_stage,
    plain,
    projections,
    tensors_of,
)
from minilm.architectures.task_heads import C
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role
from minilm.ledger.symbols import as_polynomial

_PART = components.PATCH_EMBEDDING


@dataclass(frozen=True)
class _Variant:
    """``embedding`` and ``block`` are the names of a stage's, {s} its number; the rest are defaults."""

    layers: Callable[[Config, _Variant, Stage, str], Tensors]
    widths: tuple[int, ...] = (64, 128, 320, 512)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    kernels: tuple[str, tuple[int, ...]] = ("patch_sizes", (7, 3, 3, 3))
    ratios: tuple[int, ...] = (8, 8, 4, 4)
    reduced: tuple[str, str] = ("sr_ratios", "spatial_reduction")  # by how much, and by what
    embedding: str = "encoder.patch_embeddings.{s}."
    projection: str = "proj"
    normed: bool = True  # whether a stage's squares are
    block: str = "encoder.block.{s}.{i}."
    last: str = "encoder.layer_norm.{s}"  # of each stage, or of the last alone


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family = config["model_type"]
    variant = _VARIANTS[family]
    count = layers(config, "num_encoder_blocks", 4)
    widths = per_stage(config, "hidden_sizes", variant.widths, count)
    each = [
        Stage(number, depth, as_polynomial(width), width)
        for number, (depth, width) in enumerate(
            zip(depths(config, "depths", variant.depths, count), widths, strict=True)
        )
    ]
    body = (
        *_embeddings(config, variant, each),
        *(
            tensor
            for stage in each
            for tensor in variant.layers(
                config, variant, stage, variant.block.replace("{s}", f"{stage.number}")
            )
        ),
        *(t for stage in each for t in _last(variant, stage, stage is each[-1])),
    )
    if family != "poolformer":
        heads_of(config, "num_attention_heads", (1, 2, 5, 8), widths)
    width = each[-1].value
    classes = {IMAGES: classifier(width)}
    if family == "poolformer":
        gain = tensors_of("", (Map("norm", components.FINAL_NORM, (width,)),))
        classes[IMAGES] = (*gain, *classes[IMAGES])
    if family == "segformer":
        classes["ForSemanticSegmentation"] = _decode_head(config, each)
    if family == "pvt":  # whose field has a default, so that names of classes do not count
        config = {**config, "num_labels": size(config, "num_labels", 1000)}
    return as_class(config, family, body, classes, batch_norms=("batch_norm",))


def _embeddings(config: Config, variant: _Variant, each: list[Stage]) -> Tensors:
    field, default = variant.kernels
    kernels = per_stage(config, field, default, len(each))
    inputs = size(config, "num_channels", 3)
    tensors: Tensors = ()
    for stage, kernel in zip(each, kernels, strict=True):
        prefix = variant.embedding.replace("{s}", f"{stage.number}")
        shape = (stage.width, inputs, kernel, kernel)
        tensors += tensors_of(prefix, (Map(variant.projection, _PART, shape),))
        if variant.normed:
            tensors += tensors_of(
                prefix, (Map("layer_norm", components.EMBEDDING_NORM, (stage.width,)),)
            )
        if config["model_type"] == "pvt":
            tensors += _pvt_positions(config, prefix, stage, stage is each[-1])
        inputs = stage.value
    return tensors


def _pvt_positions(config: Config, prefix: str, stage: Stage, is_last: bool) -> Tensors:
    """A position for each square, and in the last stage a token for the class, with one of its own."""
    picture = size(config, "image_size", 224) // (2 ** (stage.number + 1) if stage.number else 1)
    sides = per_stage(config, "patch_sizes", (4, 2, 2, 2), stage.number + 1)
    rows = (picture // sides[-1]) ** 2 + is_last
    part = components.POSITION_EMBEDDING
    table = plain(f"{prefix}position_embeddings", part, (1, rows, stage.width), role=Role.ADDED)
    token = plain(f"{prefix}cls_token", _PART, (1, 1, stage.width))
    return (table, token) if is_last else (table,)


def _last(variant: _Variant, stage: Stage, is_last: bool) -> Tensors:
    name = variant.last.replace("{s}", f"{stage.number}")
    if not name or (name == variant.last and not is_last):
        return ()
    return tensors_of("", (Map(name, components.FINAL_NORM, (stage.width,)),))


def _decode_head(config: Config, each: list[Stage]) -> Tensors:
    """SegFormer's: a map of each stage to one width, and of all of them to classes, square by square."""
    width, part = size(config, "decoder_hidden_size", 256), components.CLASSIFIER
    return tensors_of(
        "decode_head.",
        (
            *(Map(f"linear_c.{stage.number}.proj", part, (width, stage.width)) for stage in each),
            Map("linear_fuse", part, (width, width * len(each), 1, 1), bias=False),
            Map("batch_norm", part, (width,)),
            Map("classifier", part, (C, width, 1, 1)),
        ),
    )


def _attention(config: Config, variant: _Variant, stage: Stage, prefix: str) -> Tensors:
    """Of PVT and SegFormer: keys and values of a picture that a convolution made smaller."""
    family, width, count = config["model_type"], stage.width, stage.number + 1
    inside = "attention." if family == "pvt_v2" else "attention.self."
    output = "attention.proj" if family == "pvt_v2" else "attention.output.dense"
    maps = norms("layer_norm_1 layer_norm_2", width) + projections(
        f"{inside}query {inside}key {inside}value {output}",
        width,
        bias=family == "segformer" or flag(config, "qkv_bias", True),
    )
    field, name = variant.reduced
    side = per_stage(config, field, (8, 4, 2, 1), count)[-1]
    is_pooled = family == "pvt_v2" and flag(config, "linear_attention", False)
    if side > 1 or is_pooled:
        sides = (1, 1) if is_pooled else (side, side)
        maps += (
            Map(inside + name, components.ATTENTION_KEY_VALUE, (width, width, *sides)),
            Map(f"{inside}layer_norm", components.ATTENTION_LATENT_NORM, (width,)),
        )
    inner = per_stage(config, "mlp_ratios", variant.ratios, count)[-1] * width
    maps += feed_forward("mlp.dense1 mlp.dense2", width, inner)
    if family != "pvt":
        maps += (Map("mlp.dwconv.dwconv", components.FEED_FORWARD_UP, (inner, 1, 3, 3)),)
    return tensors_of(prefix, maps, stage.depth)


def _pooling(config: Config, variant: _Variant, stage: Stage, prefix: str) -> Tensors:
    """PoolFormer's, whose convolutions see one square."""
    del variant
    width = stage.width
    maps = (
        *norms("before_norm after_norm", width),
        *feed_forward("output.conv1 output.conv2", width, inner_width(config, stage), 1, 1),
    )
    tensors = tensors_of(prefix, maps, stage.depth)
    if not flag(config, "use_layer_scale", True):
        return tensors
    return (*tensors, *layer_scales(f"{prefix}layer_scale_1 {prefix}layer_scale_2", stage))


_VARIANTS = {
    "poolformer": _Variant(
        _pooling, depths=(2, 2, 6, 2), projection="projection", normed=False, last=""
    ),
    "pvt": _Variant(
        _attention,
        kernels=("strides", (4, 2, 2, 2)),
        reduced=("sequence_reduction_ratios", "sequence_reduction"),
        projection="projection",
        last="encoder.layer_norm",
    ),
    "pvt_v2": _Variant(
        _attention,
        widths=(32, 64, 160, 256),
        embedding="encoder.layers.{s}.patch_embedding.",
        block="encoder.layers.{s}.blocks.{i}.",
        last="encoder.layers.{s}.layer_norm",
    ),
    "segformer": _Variant(
        _attention, widths=(32, 64, 160, 256), ratios=(4, 4, 4, 4), reduced=("sr_ratios", "sr")
    ),
}
