"""Networks of PaddlePaddle's and of text detection: HGNet 2, PP-LCNet, TextNet.

Names, shapes and defaults: huggingface/transformers `models/{hgnet_v2,pp_lcnet,textnet}`.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.config_fields import (
    Config,
    depths,
    few,
    flag,
    listed,
    number,
    size,
    sizes,
)
from minilm.architectures.convolutions import (
    depthwise,
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
    batch_norm,
    classifier,
    convolution,
    joined,
    under,
)
from minilm.architectures.vision_tower import Part, once
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role

_LCNET = (
    ((3, 16, 32, 1, False),),
    ((3, 32, 64, 2, False), (3, 64, 64, 1, False)),
    ((3, 64, 128, 2, False), (3, 128, 128, 1, False)),
    ((3, 128, 256, 2, False), *[(5, 256, 256, 1, False)] * 5),
    ((5, 256, 512, 2, True), (5, 512, 512, 1, True)),
)
_TEXTNET = (
    ((3, 3), (3, 3), (3, 3)),
    ((3, 3), (1, 3), (3, 3), (3, 1)),
    ((3, 3), (3, 3), (3, 1), (1, 3)),
    ((3, 3), (3, 1), (1, 3), (3, 3)),
)
_STRIDES = ((1, 2, 1), *[(2, 1, 1, 1)] * 3)


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    return {"hgnet_v2": _hgnet, "pp_lcnet": _lcnet, "textnet": _textnet}[config["model_type"]](
        config
    )


def _hgnet(config: Config) -> Layout:
    body = hgnet(config)
    width = sizes(config, "hidden_sizes", (256, 512, 1024, 2048))[-1]
    head = classifier(config, "fc", width)
    return as_class(config, {BACKBONE: body, IMAGES: joined(body, head)})


def hgnet(config: Config) -> Part:
    """HGNet 2's body: in each block all maps are kept, and mixed at the end."""
    affine = flag(config, "use_learnable_affine_block", False)
    pixels, inner, last = sizes(config, "stem_channels", (3, 32, 48), 3)
    shapes = {
        "stem1": (inner, pixels, 3),
        "stem2a": (inner // 2, inner, 2),
        "stem2b": (inner, inner // 2, 2),
        "stem3": (inner, 2 * inner, 3),
        "stem4": (last, inner, 1),
    }
    stem = components.STEM
    parts = [
        _activated(f"embedder.{name}", *shape, component=stem, affine=affine)
        for name, shape in shapes.items()
    ]
    inputs = sizes(config, "stage_in_channels", (48, 128, 512, 1024))
    count = len(inputs)
    middle = sizes(config, "stage_mid_channels", (48, 96, 192, 384), count)
    outputs = sizes(config, "stage_out_channels", (128, 512, 1024, 2048), count)
    blocks = depths(config, "stage_num_blocks", (1, 1, 3, 1), count)
    kernels = sizes(config, "stage_kernel_size", (3, 3, 5, 5), count)
    numbers = depths(config, "stage_numb_of_layers", (6, 6, 6, 6), count)
    few("stage_numb_of_layers", sum(numbers))
    downs = _flags(config, "stage_downsample", (False, True, True, True), count)
    lights = _flags(config, "stage_light_block", (False, False, True, True), count)
    for index in range(count):
        name = f"encoder.stages.{index}"
        if downs[index]:
            parts.append(depthwise(f"{name}.downsample", inputs[index]))
        block = partial(
            _block,
            middle=middle[index],
            depth=numbers[index],
            kernel=kernels[index],
            is_light=lights[index],
            affine=affine,
        )
        sides = (inputs[index], outputs[index])
        parts.append(stage(f"{name}.blocks", index + 1, blocks[index], sides, block))
    return joined(*parts)


def _flags(config: Config, name: str, default: tuple[bool, ...], count: int) -> list[bool]:
    return [flag({name: each}, name, False) for each in listed(config, name, default, count)]


def _activated(
    name: str,
    outputs: int,
    inputs: int,
    kernel: int,
    *,
    component: str = components.CONVOLUTIONS,
    affine: bool,
) -> Part:
    """A convolution whose activations are scaled and shifted by one number each, where ``affine``."""
    part = normed_convolution(name, outputs, inputs, kernel, component)
    return joined(part, _affine(name) if affine else NOTHING)


def _affine(name: str) -> Part:
    part = components.CONVOLUTION_NORM
    scale = once(f"{name}.lab.scale", (1,), Role.SCALED, component=part)
    return Part((scale, once(f"{name}.lab.bias", (1,), Role.ADDED, component=part)))


def _block(
    name: str,
    inputs: int,
    outputs: int,
    *,
    middle: int,
    depth: int,
    kernel: int,
    is_light: bool,
    affine: bool,
) -> Part:
    parts = []
    for index in range(depth):
        layer, before = f"{name}.layers.{index}", middle if index else inputs
        if is_light:
            parts.append(normed_convolution(f"{layer}.conv1", middle, before))
            parts.append(depthwise(f"{layer}.conv2", middle, kernel))
            parts.append(_affine(f"{layer}.conv2") if affine else NOTHING)
        else:
            parts.append(_activated(layer, middle, before, kernel, affine=affine))
    all_maps, mixed = inputs + depth * middle, f"{name}.aggregation"
    return joined(
        *parts,
        _activated(f"{mixed}.0", outputs // 2, all_maps, 1, affine=affine),
        _activated(f"{mixed}.1", outputs, outputs // 2, 1, affine=affine),
    )


def _lcnet(config: Config) -> Layout:
    """PP-LCNet: MobileNet 1's blocks, some with weighed channels."""
    scale, divisor = number(config, "scale", 1.0), size(config, "divisor", 8)

    def width(channels: int) -> int:
        return divisible(channels * scale, "scale", divisor)

    name, stem = "block_configs", size(config, "stem_channels", 16)
    parts = [normed_convolution("encoder.convolution", width(stem), 3, 3, components.STEM)]
    outputs = 0
    for index, blocks in enumerate(listed(config, name, _LCNET, 5)):
        for place, each in enumerate(listed({name: blocks}, name, ())):
            kernel, before, after, _ = (
                size({name: one}, name) for one in listed({name: each}, name, (), 5)[:4]
            )
            block, inputs, outputs = (
                f"encoder.blocks.{index}.layers.{place}",
                width(before),
                after,
            )
            parts.append(depthwise(f"{block}.depthwise_convolution", inputs, kernel))
            if flag({name: each[4]}, name, False):
                weighs = f"{block}.squeeze_excitation_module.convolutions"
                inner = inputs // size(config, "reduction", 4)
                parts.append(squeeze_excitation((f"{weighs}.0", f"{weighs}.2"), inputs, inner))
            parts.append(normed_convolution(f"{block}.pointwise_convolution", width(after), inputs))
    body, expanded = joined(*parts), size(config, "class_expand", 1280)
    part = components.CLASSIFIER
    head = joined(
        body,
        convolution("last_convolution", expanded, width(outputs), component=part),
        classifier(config, "head", expanded),
    )
    return as_class(config, {BACKBONE: body, IMAGES: head})


def _textnet(config: Config) -> Layout:
    widths = sizes(config, "hidden_sizes", (64, 64, 128, 256, 512))
    stem, pixels = size(config, "stem_out_channels", 64), size(config, "stem_num_channels", 3)
    side = size(config, "stem_kernel_size", 3)
    parts = [
        convolution("stem.conv", stem, pixels, side, component=components.STEM),
        batch_norm("stem.batch_norm", stem),
    ]
    kernels = listed(config, "conv_layer_kernel_sizes", _TEXTNET)
    strides = listed(config, "conv_layer_strides", _STRIDES, len(kernels))
    if len(widths) <= len(kernels):
        raise ConfigError(
            "config.json: hidden_sizes", shortened(widths), f"{len(kernels) + 1} or more"
        )
    stages = zip(kernels, strides, pairwise(widths), strict=False)
    for index, (sides, steps, (inputs, outputs)) in enumerate(stages):
        own = zip(
            _inside("conv_layer_kernel_sizes", sides),
            _inside("conv_layer_strides", steps),
            strict=False,
        )
        for place, (kernel, stride) in enumerate(own):
            name, before = f"encoder.stages.{index}.stage.{place}", outputs if place else inputs
            parts.append(_branches(name, before, outputs, kernel, keeps=stride == 1))
    body = joined(*parts)
    whole = under("textnet.", body)
    head = joined(whole, classifier(config, "fc", widths[-1]))
    return as_class(config, {"Model": body, IMAGES: head, BACKBONE: whole})


def _inside(name: str, value: Any) -> list[Any]:
    return listed({name: value}, name, ())


def _branches(name: str, inputs: int, outputs: int, kernel: Any, *, keeps: bool) -> Part:
    """A convolution beside those of its middle column and row, and beside none where it ``keeps`` size."""
    field = "conv_layer_kernel_sizes"
    height, width = sizes({field: kernel}, field, (), 2)
    sides = {"main": (height, width)}
    sides |= {"vertical": (height, 1)} if width != 1 else {}
    sides |= {"horizontal": (1, width)} if height != 1 else {}
    branches = (
        joined(
            convolution(f"{name}.{kind}_conv", outputs, inputs, each),
            batch_norm(f"{name}.{kind}_batch_norm", outputs),
        )
        for kind, each in sides.items()
    )
    has_none = keeps and inputs == outputs
    return joined(*branches, batch_norm(f"{name}.rbr_identity", inputs) if has_none else NOTHING)
