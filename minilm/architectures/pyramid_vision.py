"""Pyramids of stages with widths of their own: SegFormer, PVT 1 and 2, PoolFormer.

Keys and values are of a reduced picture; PoolFormer averages squares in the place of attention. Names,
shapes and defaults: huggingface/transformers `models/{segformer,pvt,pvt_v2,poolformer}`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minilm.architectures.config_fields import Config, depths, flag, layers, size, sizes
from minilm.architectures.staged_vision import Stage, heads_of, inner_width, stages
from minilm.architectures.vision_parts import (
    BACKBONE,
    IMAGES,
    NOTHING,
    as_class,
    attention,
    batch_norm,
    classifier,
    convolution,
    feed_forward,
    in_layers,
    joined,
    layer_scales,
    linear,
    norm,
    norms,
    parameter,
    place_classifier,
    under,
)
from minilm.architectures.vision_tower import Part
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role

_PATCH = components.PATCH_EMBEDDING


@dataclass(frozen=True)
class _Variant:
    """``embedding`` and ``block`` are the names of a stage's, {s} its number; the rest are defaults."""

    layer: Callable[[Config, _Variant, Stage], Part]
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
    widths = sizes(config, "hidden_sizes", variant.widths, count)
    width = sizes(config, "hidden_sizes", variant.widths)[-1]  # of a stage that need not be there
    each = stages(depths(config, "depths", variant.depths, count), widths)
    is_pool = family == "poolformer"
    if not is_pool:
        heads_of(config, "num_attention_heads", (1, 2, 5, 8), widths)
    if family == "pvt":  # whose field has a default, so that names of classes do not count
        config = {**config, "num_labels": size(config, "num_labels", 1000)}
    body = joined(
        _embeddings(config, variant, each),
        *(_layers(config, variant, stage) for stage in each),
        *(_last(variant, stage, width, stage is each[-1]) for stage in each),
    )
    whole = under(f"{family}.", body)
    gain = norm("norm", width, components.FINAL_NORM) if is_pool else NOTHING
    images = joined(whole, gain, classifier(config, "classifier", width))
    classes = {"Model": body, IMAGES: images}
    if family == "pvt_v2":
        classes[BACKBONE] = body
    if family == "segformer":
        classes["ForSemanticSegmentation"] = joined(whole, _decode_head(config, each))
    return as_class(config, classes)


def _embeddings(config: Config, variant: _Variant, each: list[Stage]) -> Part:
    field, default = variant.kernels
    kernels = sizes(config, field, default, len(each))
    inputs, gain = size(config, "num_channels", 3), components.EMBEDDING_NORM
    parts = []
    for stage, kernel in zip(each, kernels, strict=True):
        width, has_positions = stage.width, config["model_type"] == "pvt"
        own = (
            convolution(variant.projection, width, inputs, kernel, _PATCH, bias=True),
            norm("layer_norm", width, gain) if variant.normed else NOTHING,
            _positions(config, stage, stage is each[-1]) if has_positions else NOTHING,
        )
        parts.append(under(variant.embedding.replace("{s}", f"{stage.number}"), *own))
        inputs = stage.value
    return joined(*parts)


def _positions(config: Config, stage: Stage, is_last: bool) -> Part:
    """A position for each square, and in the last stage a token for the class, with one of its own."""
    picture = size(config, "image_size", 224) // (2 ** (stage.number + 1) if stage.number else 1)
    patches = sizes(config, "patch_sizes", (4, 2, 2, 2), stage.number + 1)
    shape = (1, (picture // patches[-1]) ** 2 + is_last, stage.width)
    part = components.POSITION_EMBEDDING
    return joined(
        parameter("position_embeddings", shape, part, Role.ADDED),
        parameter("cls_token", (1, 1, stage.width), _PATCH) if is_last else NOTHING,
    )


def _layers(config: Config, variant: _Variant, stage: Stage) -> Part:
    prefix = variant.block.replace("{s}", f"{stage.number}")
    return in_layers(under(prefix, variant.layer(config, variant, stage)), stage.depth)


def _last(variant: _Variant, stage: Stage, width: int, is_last: bool) -> Part:
    name = variant.last.replace("{s}", f"{stage.number}")
    is_single = name == variant.last
    if not name or (is_single and not is_last):
        return NOTHING
    return norm(name, width if is_single else stage.width, components.FINAL_NORM)


def _decode_head(config: Config, each: list[Stage]) -> Part:
    """SegFormer's: a map of each stage to one width, and of all of them to classes, square by square."""
    width, part = size(config, "decoder_hidden_size", 256), components.CLASSIFIER
    maps = (linear(f"linear_c.{stage.number}.proj", width, stage.width, part) for stage in each)
    return under(
        "decode_head.",
        *maps,
        convolution("linear_fuse", width, width * len(each), 1, part),
        batch_norm("batch_norm", width, part),
        place_classifier(config, "classifier", width),
    )


def _attention(config: Config, variant: _Variant, stage: Stage) -> Part:
    """Of PVT and SegFormer: keys and values of a picture that a convolution made smaller."""
    family, width, count = config["model_type"], stage.width, stage.number + 1
    is_second = family == "pvt_v2"
    inside = "attention." if is_second else "attention.self."
    output = "attention.proj" if is_second else "attention.output.dense"
    bias = family == "segformer" or flag(config, "qkv_bias", True)
    field, name = variant.reduced
    side = sizes(config, field, (8, 4, 2, 1), count)[-1]
    reduction = NOTHING
    is_pooled = is_second and flag(config, "linear_attention", False)
    if side > 1 or is_pooled:
        kernel, part = 1 if is_pooled else side, components.ATTENTION_KEY_VALUE
        reduction = joined(
            convolution(inside + name, width, width, kernel, part, bias=True),
            norm(f"{inside}layer_norm", width, components.ATTENTION_LATENT_NORM),
        )
    inner, up = sizes(config, "mlp_ratios", variant.ratios, count)[-1] * width, "mlp.dwconv.dwconv"
    filters = convolution(up, inner, 1, 3, components.FEED_FORWARD_UP, bias=True)
    return joined(
        norms("layer_norm_1 layer_norm_2", width),
        attention(f"{inside}query {inside}key {inside}value {output}", width, bias=bias),
        reduction,
        feed_forward("mlp.dense1 mlp.dense2", width, inner),
        filters if family != "pvt" else NOTHING,
    )


def _pooling(config: Config, variant: _Variant, stage: Stage) -> Part:
    """PoolFormer's, whose convolutions see one square."""
    del variant
    width, inner = stage.width, inner_width(config, stage)
    scales = layer_scales("layer_scale_1 layer_scale_2", width)
    return joined(
        norms("before_norm after_norm", width),
        feed_forward("output.conv1 output.conv2", width, inner, convolves=True),
        scales if flag(config, "use_layer_scale", True) else NOTHING,
    )


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
