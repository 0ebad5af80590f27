"""MobileNet 1 and 2 and EfficientNet: each channel is filtered by itself, and the channels are mixed apart.

All widths follow from one factor, rounded. Names, shapes and defaults: huggingface/transformers
`models/{mobilenet_v1,mobilenet_v2,efficientnet}`.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

from minilm.architectures.config_fields import Config, depths, flag, layers, number, size, sizes
from minilm.architectures.convolutions import (
    depthwise,
    divisible,
    in_range,
    normed_convolution,
    squeeze_excitation,
    stage,
)
from minilm.architectures.vision_parts import (
    IMAGES,
    NOTHING,
    as_class,
    batch_norm,
    classifier,
    convolution,
    joined,
    place_classifier,
    under,
)
from minilm.architectures.vision_tower import Part
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family = config["model_type"]
    kinds = {"mobilenet_v1": _first, "mobilenet_v2": _second, "efficientnet": _efficient}
    body, width = kinds[family](config)
    whole = under(f"{family}.", body)
    classes = {
        "Model": body,
        IMAGES: joined(whole, classifier(config, "classifier", width)),
    }
    if family == "mobilenet_v2":
        classes["ForSemanticSegmentation"] = joined(whole, _segmentation(config))
    return as_class(config, classes)


def _factor(config: Config) -> float:
    value = number(config, "depth_multiplier", 1.0)
    if value <= 0:
        raise ConfigError("config.json: depth_multiplier", f"{value}", "a number above 0")
    return value


def _first(config: Config) -> tuple[Part, int]:
    """MobileNet 1: filters and mixtures by turns, twice as wide where the picture is halved."""
    factor, least = _factor(config), size(config, "min_depth", 8)

    def width(channels: int) -> int:
        return max(int(in_range(channels * factor, "depth_multiplier")), least)

    inputs, channels = width(32), size(config, "num_channels", 3)
    parts = [normed_convolution("conv_stem", inputs, channels, 3, components.STEM)]
    outputs = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    for index, each in enumerate(map(width, outputs)):
        parts.append(depthwise(f"layer.{2 * index}", inputs))
        parts.append(normed_convolution(f"layer.{2 * index + 1}", each, inputs))
        inputs = each
    return joined(*parts), inputs


def _second_width(
    config: Config, channels: int, factor: float, name: str = "depth_multiplier"
) -> int:
    divisor, least = size(config, "depth_divisible_by", 8), size(config, "min_depth", 8)
    return divisible(round(in_range(channels * factor, name)), name, divisor, least)


def _second(config: Config) -> tuple[Part, int]:
    """MobileNet 2: blocks that are wide within and narrow between."""
    factor, expand = _factor(config), number(config, "expand_ratio", 6.0)
    stem, first = size(config, "num_channels", 3), _second_width(config, 32, factor)
    outputs = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)
    inner = [_second_width(config, each, factor) for each in outputs]
    parts = [
        normed_convolution("conv_stem.first_conv", first, stem, 3, components.STEM),
        depthwise("conv_stem.conv_3x3", first),
        normed_convolution("conv_stem.reduce_1x1", inner[0], first),
    ]
    if not flag(config, "first_layer_is_expansion", True):
        parts.append(normed_convolution("conv_stem.expand_1x1", first, first))
    for index, (before, after) in enumerate(pairwise(inner)):
        wide = _second_width(config, before, expand, "expand_ratio")
        parts.append(inverted_residual(f"layer.{index}", before, after, wide))
    is_fine = flag(config, "finegrained_output", True) and factor < 1.0
    last = 1280 if is_fine else _second_width(config, 1280, factor)
    parts.append(normed_convolution("conv_1x1", last, inner[-1]))
    return joined(*parts), last


def inverted_residual(name: str, inputs: int, outputs: int, inner: int) -> Part:
    """MobileNet 2's block, ``inner`` channels wide within."""
    return joined(
        normed_convolution(f"{name}.expand_1x1", inner, inputs),
        depthwise(f"{name}.conv_3x3", inner),
        normed_convolution(f"{name}.reduce_1x1", outputs, inner),
    )


def _segmentation(config: Config) -> Part:
    """DeepLab 3+ over the last map but one."""
    head, inputs = "segmentation_head", _second_width(config, 320, _factor(config))
    part = components.CLASSIFIER
    return joined(
        normed_convolution(f"{head}.conv_pool", 256, inputs, 1, part),
        normed_convolution(f"{head}.conv_aspp", 256, inputs, 1, part),
        normed_convolution(f"{head}.conv_projection", 256, 512, 1, part),
        place_classifier(config, f"{head}.classifier.convolution", 256),
    )


def _efficient(config: Config) -> tuple[Part, int]:
    """EfficientNet: MobileNet 2's blocks with weighed channels, whose number a factor sets too."""
    factor, divisor = number(config, "width_coefficient", 2.0), size(config, "depth_divisor", 8)
    before = sizes(config, "in_channels", (32, 16, 24, 40, 80, 112, 192))
    count, times = len(before), number(config, "depth_coefficient", 3.1)

    def width(channels: int) -> int:
        return divisible(channels * factor, "width_coefficient", divisor)

    first, channels = width(32), size(config, "num_channels", 3)
    stem = components.STEM
    parts = [
        convolution("embeddings.convolution", first, channels, 3, component=stem),
        batch_norm("embeddings.batchnorm", first),
    ]
    after = sizes(config, "out_channels", (16, 24, 40, 80, 112, 192, 320), count)
    kernels = sizes(config, "kernel_sizes", (3, 3, 5, 3, 5, 5, 3), count)
    ratios = sizes(config, "expand_ratios", (1, 6, 6, 6, 6, 6, 6), count)
    repeats = depths(config, "num_block_repeats", (1, 2, 2, 3, 3, 4, 1), count)
    start = 0
    for index, each in enumerate(repeats):
        depth = math.ceil(in_range(times * each, "depth_coefficient"))
        depth = layers({"depth_coefficient": depth}, "depth_coefficient")
        block = partial(_weighed, config, kernel=kernels[index], ratio=ratios[index])
        sides = (width(before[index]), width(after[index]))
        parts.append(stage("encoder.blocks", index + 1, depth, sides, block, start=start))
        start += depth
    last = size(config, "hidden_dim", 2560)
    parts.append(convolution("encoder.top_conv", width(1280), width(after[-1])))
    parts.append(batch_norm("encoder.top_bn", last))
    return joined(*parts), last


def _weighed(
    config: Config, name: str, inputs: int, outputs: int, *, kernel: int, ratio: int
) -> Part:
    inner, apart = inputs * ratio, components.DEPTHWISE_CONVOLUTIONS
    factor = number(config, "squeeze_expansion_ratio", 0.25)
    squeezed = max(1, int(in_range(inputs * factor, "squeeze_expansion_ratio")))
    names = (f"{name}.squeeze_excite.reduce", f"{name}.squeeze_excite.expand")
    expansion = joined(
        convolution(f"{name}.expansion.expand_conv", inner, inputs),
        batch_norm(f"{name}.expansion.expand_bn", inner),
    )
    return joined(
        expansion if ratio > 1 else NOTHING,
        convolution(f"{name}.depthwise_conv.depthwise_conv", inner, 1, kernel, component=apart),
        batch_norm(f"{name}.depthwise_conv.depthwise_norm", inner),
        squeeze_excitation(names, inner, squeezed),
        convolution(f"{name}.projection.project_conv", outputs, inner),
        batch_norm(f"{name}.projection.project_bn", outputs),
    )
