"""Hiera: stages of plain attention whose first layer pools its queries and changes the width.

It attends within units of squares that masking leaves together; what it learns by, ForPreTraining, adds a
decoder. Names, shapes and defaults: huggingface/transformers `models/hiera`.
"""

from __future__ import annotations

import math

from minilm.architectures.config_fields import (
    Config,
    depths,
    layers,
    number,
    sides,
    size,
    whole_number,
)
from minilm.architectures.staged_vision import Stage, heads_of, inner_width, stages
from minilm.architectures.task_heads import class_name_of
from minilm.architectures.vision_parts import (
    BACKBONE,
    IMAGES,
    NOTHING,
    as_class,
    classifier,
    convolution,
    feed_forward,
    in_layers,
    joined,
    linear,
    norm,
    output_norms,
    parameter,
    under,
)
from minilm.architectures.vision_tower import Part, Width
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role

_PRE_TRAINING, _POSITION = "ForPreTraining", components.POSITION_EMBEDDING
_DEPTHS = (2, 3, 16, 3)


def layout(config: Config) -> Layout:
    """The tensors of a class of Hiera for a config.json."""
    base, ratio = size(config, "embed_dim", 96), number(config, "embed_dim_multiplier", 2.0)
    each = depths(config, "depths", _DEPTHS)
    widths = [_width(base, ratio, stage) for stage in range(len(each))]
    heads_of(config, "num_heads", (1, 2, 4, 8), widths)
    parts, inputs = [_embeddings(config, base)], base
    for stage in stages(each, widths):
        parts.append(under(f"encoder.stages.{stage.number}.", _stage(config, stage, inputs)))
        inputs = stage.value
    trunk, gain = joined(*parts), norm("pooler.layernorm", inputs, components.POOLER)
    body = joined(trunk, gain)
    classes = {
        "Model": body,
        IMAGES: joined(under("hiera.", body), classifier(config, "classifier", inputs)),
    }
    classes[BACKBONE] = joined(trunk, output_norms(config, widths, _DEPTHS))
    if class_name_of(config).endswith(_PRE_TRAINING):
        classes[_PRE_TRAINING] = joined(under("hiera.", trunk), _pre_training(config, widths))
    return as_class(config, classes)


def _width(base: int, ratio: float, stage: int) -> int:
    name = "embed_dim_multiplier"
    try:
        width = int(base * ratio**stage)
    except OverflowError:
        raise ConfigError(f"config.json: {name}", f"{ratio}", "a smaller factor") from None
    return size({name: width}, name)


def _embeddings(config: Config, width: int) -> Part:
    channels, kernel = size(config, "num_channels", 3), sides(config, "patch_size", 7)
    name, part = "patch_embeddings.projection", components.PATCH_EMBEDDING
    shape = (1, math.prod(_grid(config)), width)
    return under(
        "embeddings.",
        parameter("position_embeddings", shape, _POSITION, Role.ADDED),
        convolution(name, width, channels, kernel, part, bias=True),
    )


def _grid(config: Config) -> tuple[int, int]:
    """Squares from top to bottom and from left to right."""
    picture, stride = sides(config, "image_size", 224), sides(config, "patch_stride", 4)
    return picture[0] // stride[0], picture[1] // stride[1]


def _stage(config: Config, stage: Stage, inputs: int) -> Part:
    """Its layers; the first has other inputs, and where those have another width a map of them."""
    depth, width = stage.depth, stage.value
    projection = linear("layers.0.proj", width, inputs, components.ATTENTION_OUTPUT)
    others = under("layers.{i}.", _layer(config, stage, width))
    return joined(
        under("layers.0.", _layer(config, stage, inputs)),
        projection if inputs != width else NOTHING,
        in_layers(others, depth - 1, range(1, depth)),
    )


def _layer(config: Config, stage: Stage, inputs: int) -> Part:
    width, fused = stage.width, components.ATTENTION_QUERY_KEY_VALUE
    return joined(
        norm("layernorm_before", inputs, components.ATTENTION_NORM),
        linear("attn.qkv", 3 * width, inputs, fused),
        linear("attn.proj", width, width, components.ATTENTION_OUTPUT),
        norm("layernorm_after", width, components.FEED_FORWARD_NORM),
        feed_forward("mlp.fc1 mlp.fc2", width, inner_width(config, stage)),
    )


def _pre_training(config: Config, widths: list[int]) -> Part:
    """Every pooled stage brought to the last one's squares and width, and a decoder of what was masked."""
    pools = whole_number(config, "num_query_pool", 3)
    stride = sides(config, "query_stride", 2)
    unit = sides(config, "masked_unit_size", 8)
    part, last = components.LM_HEAD, widths[-1]
    if pools >= len(widths):
        raise ConfigError("config.json: num_query_pool", f"{pools}", "fewer than there are stages")
    # A stage's unit of squares over the last one's, so that a filter leaves as many.
    final = [side // step**pools for side, step in zip(unit, stride, strict=True)]
    if not all(final):
        raise ConfigError("config.json: masked_unit_size", f"{unit}", "units that pooling leaves")
    heads = []
    for stage in range(pools):
        kernel = (unit[0] // final[0], unit[1] // final[1])
        name = f"multiscale_fusion.multi_scale_fusion_heads.{stage}"
        heads.append(convolution(name, last, widths[stage], kernel, part, bias=True))
        unit = (unit[0] // stride[0], unit[1] // stride[1])
    rows = math.prod(side // step**pools for side, step in zip(_grid(config), stride, strict=True))
    patch = sides(config, "patch_stride", 4)[1] * stride[1] ** pools
    gain = norm("encoder_norm", last, components.FINAL_NORM)
    pixels = patch**2 * size(config, "num_channels", 3)
    return joined(gain, *heads, under("decoder.", _decoder(config, rows, pixels, last)))


def _decoder(config: Config, rows: int, pixels: int, inputs: Width) -> Part:
    """Layers like the encoder's between two maps."""
    depth, width = layers(config, "decoder_depth"), size(config, "decoder_hidden_size")
    part, positions = components.LM_HEAD, "decoder_position_embeddings"
    stage = stages((depth,), (width,))[0]
    return joined(
        parameter("mask_token", (1, 1, width), part),
        parameter(positions, (1, rows, width), _POSITION, Role.ADDED),
        linear("decoder_embeddings", width, inputs, part),
        under("decoder_block.", _stage(config, stage, width)),
        norm("decoder_norm", width, part),
        linear("decoder_pred", pixels, width, part),
    )
