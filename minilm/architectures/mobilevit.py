"""MobileViT, 1 and 2: MobileNet's blocks, and between them transformers over small squares of the picture.

The second's widths follow from one factor, and its attention is linear. Names, shapes and defaults:
huggingface/transformers `models/{mobilevit,mobilevitv2}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from minilm.architectures.config_fields import (
    Config,
    depths,
    flag,
    head_width,
    number,
    scaled_size,
    size,
    sizes,
)
from minilm.architectures.convolutions import (
    depthwise,
    divisible,
    in_range,
    normed_convolution,
    stage,
)
from minilm.architectures.mobilenet import inverted_residual
from minilm.architectures.vision_parts import (
    IMAGES,
    NOTHING,
    as_class,
    attention,
    classifier,
    convolution,
    feed_forward,
    joined,
    norm,
    norms,
    place_classifier,
    repeated,
    under,
)
from minilm.architectures.vision_tower import Part
from minilm.ledger import components
from minilm.ledger.layout import Layout


@dataclass(frozen=True)
class _Sizes:
    """The channels of stem and stages, and of the last three the width and layers of their transformers."""

    channels: list[int]
    widths: list[int]
    depths: list[int]
    blocks: int  # in the second stage
    last: int  # what the classifier reads


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family = config["model_type"]
    is_first = family == "mobilevit"
    sizes = _first_sizes(config) if is_first else _second_sizes(config)
    trunk = _trunk(config, sizes)
    last = normed_convolution("conv_1x1_exp", sizes.last, sizes.channels[-1])
    body = joined(trunk, last if is_first else NOTHING)
    head = classifier(config, "classifier", sizes.last)
    return as_class(
        config,
        {
            "Model": body,
            IMAGES: joined(under(f"{family}.", body), head),
            "ForSemanticSegmentation": joined(
                under(f"{family}.", trunk),
                _segmentation(config, sizes.channels[-1], 256 if is_first else 512),
            ),
        },
    )


def _first_sizes(config: Config) -> _Sizes:
    channels = sizes(config, "neck_hidden_sizes", (16, 32, 64, 96, 128, 160, 640), 7)
    inner = sizes(config, "hidden_sizes", (144, 192, 240), 3)
    heads = size(config, "num_attention_heads", 4)
    for width in inner:
        head_width(width, heads, "hidden_sizes")
    return _Sizes(channels[:6], inner, [2, 4, 3], blocks=3, last=channels[6])


def _second_sizes(config: Config) -> _Sizes:
    factor = number(config, "width_multiplier", 1.0)
    scaled = partial(_scaled, factor)
    first = divisible(min(max(32 * factor, 16), 64), "width_multiplier", 8, 16)
    outputs = [scaled(each) for each in (128, 256, 384, 512)]
    units = sizes(config, "base_attn_unit_dims", (128, 192, 256), 3)
    numbers = depths(config, "n_attn_blocks", (2, 4, 3), 3)
    channels = [first, scaled(64, 16), *outputs]
    return _Sizes(channels, [scaled(each) for each in units], numbers, blocks=2, last=outputs[-1])


def _scaled(factor: float, width: int, divisor: int = 8) -> int:
    return divisible(width * factor, "width_multiplier", divisor)


def _trunk(config: Config, sizes: _Sizes) -> Part:
    """Stem, two stages of MobileNet's blocks, and three with a transformer."""
    stem, first, second = sizes.channels[:3]
    block = partial(_inverted, config)
    pixels = size(config, "num_channels", 3)
    parts = [
        normed_convolution("conv_stem", stem, pixels, 3, components.STEM),
        stage("encoder.layer.0.layer", 1, 1, (stem, first), block),
        stage("encoder.layer.1.layer", 2, sizes.blocks, (first, second), block),
    ]
    apart = config["model_type"] == "mobilevitv2"
    kernel, inputs = size(config, "conv_kernel_size", 3), second
    places = zip(sizes.channels[3:], sizes.widths, sizes.depths, strict=True)
    for index, (outputs, width, depth) in enumerate(places, 2):
        name = f"encoder.layer.{index}"
        local, project = f"{name}.conv_kxk", f"{name}.conv_projection"
        layer = f"{name}.transformer.layer.{{i}}"
        if apart:
            own = (depthwise(local, outputs, kernel), _linear_layer(config, layer, width))
        else:
            fusion = normed_convolution(f"{name}.fusion", outputs, 2 * outputs, kernel)
            parts.append(joined(fusion))
            own = (
                normed_convolution(local, outputs, outputs, kernel),
                _layer(config, layer, width),
            )
        parts += [
            _inverted(config, f"{name}.downsampling_layer", inputs, outputs),
            own[0],
            convolution(f"{name}.conv_1x1.convolution", width, outputs),
            repeated(own[1], index + 1, depth),
            norm(f"{name}.layernorm", width),
            normed_convolution(project, outputs, width),
        ]
        inputs = outputs
    return joined(*parts)


def _inverted(config: Config, name: str, inputs: int, outputs: int) -> Part:
    ratio = number(config, "expand_ratio", 4.0 if config["model_type"] == "mobilevit" else 2.0)
    inner = divisible(round(in_range(inputs * ratio, "expand_ratio")), "expand_ratio")
    return inverted_residual(name, inputs, outputs, inner)


def _layer(config: Config, name: str, width: int) -> Part:
    """ViT's."""
    inner = scaled_size(config, "mlp_ratio", 2.0, width)
    inside, bias = "attention.attention.", flag(config, "qkv_bias", True)
    names = f"{inside}query {inside}key {inside}value attention.output.dense"
    return under(
        f"{name}.",
        norms("layernorm_before layernorm_after", width),
        attention(names, width, bias=bias),
        feed_forward("intermediate.dense output.dense", width, inner),
    )


def _linear_layer(config: Config, name: str, width: int) -> Part:
    """One query for all places of a square; its matrices are convolutions."""
    inner = size(config, "ffn_multiplier", 2) * width // 16 * 16
    fused, up = components.ATTENTION_QUERY_KEY_VALUE, components.FEED_FORWARD_UP

    def mixed(part: str, outputs: int, inputs: int, component: str) -> Part:
        full = f"{name}.{part}.convolution"
        return convolution(full, outputs, inputs, bias=True, component=component)

    return joined(
        norm(f"{name}.layernorm_before", width, components.ATTENTION_NORM),
        mixed("attention.qkv_proj", 1 + 2 * width, width, fused),
        mixed("attention.out_proj", width, width, components.ATTENTION_OUTPUT),
        norm(f"{name}.layernorm_after", width, components.FEED_FORWARD_NORM),
        mixed("ffn.conv1", inner, width, up),
        mixed("ffn.conv2", width, inner, components.FEED_FORWARD_DOWN),
    )


def _segmentation(config: Config, inputs: int, default: int) -> Part:
    """DeepLab 3: filters that look wide, in three strides, beside a mean over the picture."""
    head, outputs = "segmentation_head", size(config, "aspp_out_channels", default)
    part = components.CLASSIFIER
    wide = (
        normed_convolution(f"{head}.aspp.convs.{number}", outputs, inputs, 3, part)
        for number in (1, 2, 3)
    )
    return joined(
        normed_convolution(f"{head}.aspp.convs.0", outputs, inputs, 1, part),
        *wide,
        normed_convolution(f"{head}.aspp.convs.4.conv_1x1", outputs, inputs, 1, part),
        normed_convolution(f"{head}.aspp.project", outputs, 5 * outputs, 1, part),
        place_classifier(config, f"{head}.classifier.convolution", outputs),
    )
