"""Residual networks that classify images, or give their maps to a detector: ResNet, RegNet, BiT.

Names, shapes and defaults: huggingface/transformers `models/{resnet,regnet,bit}`.
"""

from __future__ import annotations

from functools import partial

from minilm.architectures.config_fields import Config, choice, depths, flag, size, sizes
from minilm.architectures.convolutions import (
    Block,
    divisible,
    normed_convolution,
    squeeze_excitation,
    stage,
)
from minilm.architectures.vision_parts import (
    BACKBONE,
    IMAGES,
    NOTHING,
    as_class,
    classifier,
    convolution,
    joined,
    norm,
    under,
)
from minilm.architectures.vision_tower import Part
from minilm.ledger import components
from minilm.ledger.layout import Layout

_WIDTHS, _DEPTHS = (256, 512, 1024, 2048), (3, 4, 6, 3)


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family = config["model_type"]
    body, width = {"resnet": resnet, "regnet": _regnet, "bit": _bit}[family](config)
    whole = under(f"{family}.", body)
    classes = {
        "Model": body,
        IMAGES: joined(whole, classifier(config, "classifier.1", width)),
    }
    if family != "regnet":
        classes[BACKBONE] = whole if family == "bit" else body
    return as_class(config, classes)


def resnet(config: Config) -> tuple[Part, int]:
    """A ResNet's body, and its width at the end."""
    kind = choice(config, "layer_type", "bottleneck", ("basic", "bottleneck"))
    return _residual(
        config,
        sizes(config, "hidden_sizes", _WIDTHS),
        depths(config, "depths", _DEPTHS),
        bottleneck_block if kind == "bottleneck" else basic_block,
        stem=(size(config, "embedding_size", 64), 7),
        downsamples_first=flag(config, "downsample_in_first_stage", False),
    )


def basic_block(name: str, inputs: int, outputs: int) -> Part:
    """Two convolutions of 3 by 3."""
    return joined(
        normed_convolution(f"{name}.layer.0", outputs, inputs, 3),
        normed_convolution(f"{name}.layer.1", outputs, outputs, 3),
    )


def bottleneck_block(name: str, inputs: int, outputs: int) -> Part:
    """Three, of which the middle one sees more than a place, and a quarter of the channels."""
    inner = outputs // 4
    return joined(
        normed_convolution(f"{name}.layer.0", inner, inputs),
        normed_convolution(f"{name}.layer.1", inner, inner, 3),
        normed_convolution(f"{name}.layer.2", outputs, inner),
    )


def _regnet(config: Config) -> tuple[Part, int]:
    squeezes = choice(config, "layer_type", "y", ("x", "y")) == "y"
    group = size(config, "groups_width", 64)
    return _residual(
        config,
        sizes(config, "hidden_sizes", (128, 192, 512, 1088)),
        depths(config, "depths", (2, 6, 12, 2)),
        partial(_grouped, squeezes=squeezes, group=group),
        stem=(size(config, "embedding_size", 32), 3),
        downsamples_first=flag(config, "downsample_in_first_stage", True),
    )


def _grouped(name: str, inputs: int, outputs: int, *, squeezes: bool, group: int) -> Part:
    """RegNet's block: its middle convolution is in groups, and Y weighs the channels before the last."""
    weighing = NOTHING
    if squeezes:
        names = (f"{name}.layer.2.attention.0", f"{name}.layer.2.attention.2")
        weighing = squeeze_excitation(names, outputs, round(inputs / 4))
    return joined(
        normed_convolution(f"{name}.layer.0", outputs, inputs),
        normed_convolution(f"{name}.layer.1", outputs, outputs // max(1, outputs // group), 3),
        weighing,
        normed_convolution(f"{name}.layer.{3 if squeezes else 2}", outputs, outputs),
    )


def _residual(
    config: Config,
    widths: list[int],
    numbers: list[int],
    block: Block,
    *,
    stem: tuple[int, int],
    downsamples_first: bool,
) -> tuple[Part, int]:
    """A ``stem`` of so many channels by filters of such a size, and the stages of a ResNet."""
    inputs, kernel = stem
    channels = size(config, "num_channels", 3)
    first = "embedder.embedder"
    parts = [normed_convolution(first, inputs, channels, kernel, components.STEM)]
    for index, (outputs, depth) in enumerate(zip(widths, numbers, strict=False)):
        name = f"encoder.stages.{index}.layers"
        if index or downsamples_first or inputs != outputs:
            shortcut = components.SHORTCUT
            parts.append(normed_convolution(f"{name}.0.shortcut", outputs, inputs, 1, shortcut))
        parts.append(stage(name, index + 1, depth, (inputs, outputs), block))
        inputs = outputs
    return joined(*parts), widths[-1]


def _bit(config: Config) -> tuple[Part, int]:
    """BiT: group norms, before the convolutions or behind them, and widths in multiples of 8."""
    kind = choice(config, "layer_type", "preactivation", ("preactivation", "bottleneck"))
    is_first = kind == "preactivation"
    inputs, channels = size(config, "embedding_size", 64), size(config, "num_channels", 3)
    widths = sizes(config, "hidden_sizes", _WIDTHS)
    factor = size(config, "width_factor", 1)
    stem = components.STEM
    parts = [convolution("embedder.convolution", inputs, channels, 7, component=stem)]
    parts += [] if is_first else [norm("embedder.norm", inputs)]
    for index, (each, depth) in enumerate(
        zip(widths, depths(config, "depths", _DEPTHS), strict=False)
    ):
        outputs, name = divisible(each * factor, "width_factor"), f"encoder.stages.{index}.layers"
        shortcut = f"{name}.0.downsample"
        parts.append(
            convolution(f"{shortcut}.conv", outputs, inputs, component=components.SHORTCUT)
        )
        parts += [] if is_first else [norm(f"{shortcut}.norm", outputs)]
        block = partial(_group_normed, is_first=is_first)
        parts.append(stage(name, index + 1, depth, (inputs, outputs), block))
        inputs = outputs
    parts += [norm("norm", widths[-1], components.FINAL_NORM)] if is_first else []
    return joined(*parts), widths[-1]


def _group_normed(name: str, inputs: int, outputs: int, *, is_first: bool) -> Part:
    inner = divisible(outputs / 4, "hidden_sizes")
    normed = (inputs, inner, inner) if is_first else (inner, inner, outputs)
    return joined(
        convolution(f"{name}.conv1", inner, inputs),
        convolution(f"{name}.conv2", inner, inner, 3),
        convolution(f"{name}.conv3", outputs, inner),
        *(norm(f"{name}.norm{number}", width) for number, width in enumerate(normed, 1)),
    )
