"""Hiera: stages of plain attention whose first layer pools its queries and changes the width.

It attends within units of squares that masking leaves together; what it learns by, ForPreTraining, adds a
decoder. Names, shapes and defaults: huggingface/transformers `models/hiera`.
"""

from __future__ import annotations

import math

from minilm.architectures.config_fields import layers, number, size, whole_number
from minilm.architectures.staged_vision import (
    IMAGES,
    Config,
    Map,
    Tensors,
    as_class,
    classifier,
    depths,
    feed_forward,
    heads_of,
    multiple,
    norms,
    numbered,
    plain,
    tensors_of,
)
from minilm.architectures.task_heads import class_name_of
from minilm.architectures.vit import sides
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role
from minilm.ledger.symbols import as_polynomial

_PATCH, _PRE_TRAINING = components.PATCH_EMBEDDING, "ForPreTraining"


def layout(config: Config) -> Layout:
    """The tensors of a class of Hiera for a config.json."""
    base, ratio = size(config, "embed_dim", 96), number(config, "embed_dim_multiplier", 2.0)
    each = depths(config, "depths", (2, 3, 16, 3))
    widths = [_width(base, ratio, stage) for stage in range(len(each))]
    heads_of(config, "num_heads", (1, 2, 4, 8), widths)
    stages: Tensors = ()
    inputs = base
    for stage, (depth, width) in enumerate(zip(each, widths, strict=True)):
        stages += _stage(config, f"encoder.stages.{stage}.layers.", depth, inputs, width)
        inputs = width
    gain = Map("pooler.layernorm", components.POOLER, (inputs,))
    classes = {IMAGES: (*tensors_of("hiera.", (gain,)), *classifier(inputs))}
    if class_name_of(config).endswith(_PRE_TRAINING):
        classes[_PRE_TRAINING] = _pre_training(config, widths)
    return as_class(
        config,
        "hiera",
        (*_embeddings(config, base), *stages),
        classes,
        alone=tensors_of("", (gain,)),
    )


def _width(base: int, ratio: float, stage: int) -> int:
    name = "embed_dim_multiplier"
    try:
        width = int(base * ratio**stage)
    except OverflowError:
        raise ConfigError(f"config.json: {name}", f"{ratio}", "a smaller factor") from None
    return size({name: width}, name)


def _embeddings(config: Config, width: int) -> Tensors:
    pixels = (width, size(config, "num_channels", 3), *sides(config, "patch_size", 7))
    projection = Map("embeddings.patch_embeddings.projection", _PATCH, pixels)
    rows, part = math.prod(_grid(config)), components.POSITION_EMBEDDING
    table = plain("embeddings.position_embeddings", part, (1, rows, width), role=Role.ADDED)
    return (table, *tensors_of("", (projection,)))


def _grid(config: Config) -> tuple[int, int]:
    """Squares from top to bottom and from left to right."""
    picture, stride = sides(config, "image_size", 224), sides(config, "patch_stride", 4)
    return picture[0] // stride[0], picture[1] // stride[1]


def _stage(config: Config, prefix: str, depth: int, inputs: int, width: int) -> Tensors:
    """``depth`` layers; the first has other inputs, and where those have another width a map of them."""
    first = f"{prefix}0."
    tensors = tensors_of(first, _layer(config, inputs, width))
    if inputs != width:
        changed = Map("proj", components.ATTENTION_OUTPUT, (width, inputs))
        tensors += tensors_of(first, (changed,))
    others = tensors_of(f"{prefix}{{i}}.", _layer(config, width, width))
    return (*tensors, *numbered(others, range(1, depth)))


def _layer(config: Config, inputs: int, width: int) -> tuple[Map, ...]:
    before, after = norms("layernorm_before layernorm_after", width)
    inner = multiple(as_polynomial(width), width, number(config, "mlp_ratio", 4.0), "mlp_ratio")
    return (
        before._replace(shape=(inputs,)),
        Map("attn.qkv", components.ATTENTION_QUERY_KEY_VALUE, (3 * width, inputs)),
        Map("attn.proj", components.ATTENTION_OUTPUT, (width, width)),
        after,
        *feed_forward("mlp.fc1 mlp.fc2", width, inner),
    )


def _pre_training(config: Config, widths: list[int]) -> Tensors:
    """Every pooled stage brought to the last one's squares and width, and a decoder of what was masked."""
    pools = whole_number(config, "num_query_pool", 3)
    stride = sides(config, "query_stride", 2)
    unit = sides(config, "masked_unit_size", 8)
    width = size(config, "decoder_hidden_size")
    part, last = components.LM_HEAD, widths[-1]
    if pools >= len(widths):
        raise ConfigError("config.json: num_query_pool", f"{pools}", "fewer than there are stages")
    # A stage's unit of squares over the last one's, so that a filter leaves as many.
    final = [side // step**pools for side, step in zip(unit, stride, strict=True)]
    if not all(final):
        raise ConfigError("config.json: masked_unit_size", f"{unit}", "units that pooling leaves")
    heads: list[Map] = []
    for stage in range(pools):
        kernel = (side // least for side, least in zip(unit, final, strict=True))
        name = f"multiscale_fusion.multi_scale_fusion_heads.{stage}"
        heads.append(Map(name, part, (last, widths[stage], *kernel)))
        unit = (unit[0] // stride[0], unit[1] // stride[1])
    rows = math.prod(side // step**pools for side, step in zip(_grid(config), stride, strict=True))
    patch = sides(config, "patch_stride", 4)[1] * stride[1] ** pools
    pixels = patch**2 * size(config, "num_channels", 3)
    depth = layers(config, "decoder_depth")
    positions = components.POSITION_EMBEDDING
    return (
        *tensors_of("", (Map("encoder_norm", components.FINAL_NORM, (last,)), *heads)),
        plain("decoder.mask_token", part, (1, 1, width)),
        plain("decoder.decoder_position_embeddings", positions, (1, rows, width), role=Role.ADDED),
        *tensors_of("decoder.", (Map("decoder_embeddings", part, (width, last)),)),
        *_stage(config, "decoder.decoder_block.layers.", depth, width, width),
        *tensors_of(
            "decoder.",
            (Map("decoder_norm", part, (width,)), Map("decoder_pred", part, (pixels, width))),
        ),
    )
