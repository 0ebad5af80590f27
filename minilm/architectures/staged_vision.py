"""What classifiers of images are put together from whose stages have fewer, wider squares each time.

A square of one stage is none of the next, so there is no cost of a token: no FLOPs are told. Widths that
double are told in the letter of the first one, others stand as numbers. A batch norm's running statistics
are buffers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from reprlib import repr as shortened
from typing import Any, NamedTuple

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import layers, number, size
from minilm.architectures.davit import stages
from minilm.architectures.task_heads import (
    C,
    class_name_of,
    head,
    number_of_classes,
    undeclared_class,
)
from minilm.config.validation import LARGEST_DIMENSION
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial

Config = Mapping[str, Any]
Size = Polynomial | int
Tensors = tuple[Tensor, ...]
MASKED_IMAGES = "ForMaskedImageModeling"
IMAGES = "ForImageClassification"


class Map(NamedTuple):
    """``name.weight`` and a bias of a linear map, a convolution or, of one dimension, a norm."""

    name: str
    component: str
    shape: tuple[Size, ...]
    bias: bool = True


class Stage(NamedTuple):
    """The ``number`` of a stage, its layers, and the width of its squares, with its ``value``."""

    number: int
    depth: int
    width: Polynomial
    value: int


def tensors_of(prefix: str, maps: Iterable[Map], repeat: Size = ONE) -> Tensors:
    """The tensors of ``maps`` below a prefix that ends with a point; with {i} in it in each of the layers."""
    return tuple(
        tensor
        for name, component, shape, bias in maps
        for tensor in (
            plain(f"{prefix}{name}.weight", component, shape, repeat),
            *(
                (plain(f"{prefix}{name}.bias", component, shape[:1], repeat, Role.ADDED),)
                if bias
                else ()
            ),
        )
    )


def numbered(tensors: Tensors, numbers: Sequence[int]) -> Tensors:
    """Those with {i} in their names in the layers that have these numbers."""
    repeat = as_polynomial(len(numbers))
    return tuple(replace(t, repeat=repeat, layers=numbers) for t in tensors if numbers)


def plain(
    name: str,
    component: str,
    shape: Sequence[Size],
    repeat: Size = ONE,
    role: Role | None = None,
) -> Tensor:
    """One tensor by its whole name."""
    role = role or (Role.SCALED if len(shape) == 1 else Role.ONCE)
    sizes = tuple(map(as_polynomial, shape))
    return Tensor(name, sizes, component, role, as_polynomial(repeat))


def projections(names: str, width: Size, *, bias: bool = True) -> tuple[Map, ...]:
    """Query, key and value, whose biases are a setting, and output: squares of one width."""
    query, key, value, output = names.split()
    return (
        Map(query, components.ATTENTION_QUERY, (width, width), bias),
        Map(key, components.ATTENTION_KEY, (width, width), bias),
        Map(value, components.ATTENTION_VALUE, (width, width), bias),
        Map(output, components.ATTENTION_OUTPUT, (width, width)),
    )


def feed_forward(names: str, width: Size, inner: Size, *kernel: int) -> tuple[Map, ...]:
    """To the inner width and back; with a ``kernel`` as convolutions."""
    up, down = names.split()
    return (
        Map(up, components.FEED_FORWARD_UP, (inner, width, *kernel)),
        Map(down, components.FEED_FORWARD_DOWN, (width, inner, *kernel)),
    )


def norms(names: str, width: Size) -> tuple[Map, ...]:
    """Before attention and before the feed-forward."""
    first, second = names.split()
    return (
        Map(first, components.ATTENTION_NORM, (width,)),
        Map(second, components.FEED_FORWARD_NORM, (width,)),
    )


def layer_scales(names: str, stage: Stage, *more: int) -> Tensors:
    """Gains of what a stage's attention and its feed-forward add; ``more`` are sides of one."""
    parts = (components.ATTENTION_OUTPUT_NORM, components.FEED_FORWARD_OUTPUT_NORM)
    return tuple(
        plain(name, part, (stage.width, *more), stage.depth, Role.SCALED)
        for name, part in zip(names.split(), parts, strict=True)
    )


def running(tensors: Iterable[Tensor], *endings: str) -> Tensors:
    """What the batch norms whose gains are called so have seen."""
    return tuple(
        replace(gain, name=gain.name.removesuffix("weight") + name, shape=shape)
        for gain in tensors
        if gain.name.endswith(tuple(f"{ending}.weight" for ending in endings))
        for name, shape in (
            ("running_mean", gain.shape),
            ("running_var", gain.shape),
            ("num_batches_tracked", ()),
        )
    )


def per_stage(config: Config, name: str, default: Sequence[int], count: int) -> list[int]:
    """A size for each of ``count`` stages: the first ones of a list."""
    listed = stages(config, name, default)
    if len(listed) < count:
        raise ConfigError(f"config.json: {name}", shortened(listed), f"{count} sizes")
    return listed[:count]


def listed(config: Config, name: str, default: Sequence[Any], count: int) -> Sequence[Any]:
    """The first ``count`` things of a list."""
    value = default if config.get(name) is None else config[name]
    if not isinstance(value, (list, tuple)) or len(value) < count:
        raise ConfigError(f"config.json: {name}", shortened(value), f"a list of {count} or more")
    return value[:count]


def depths(
    config: Config, name: str, default: Sequence[int], count: int | None = None
) -> list[int]:
    """How many layers each stage has; of the first ``count`` where something else says how many."""
    listed = (
        stages(config, name, default) if count is None else per_stage(config, name, default, count)
    )
    return [layers({name: each}, name) for each in listed]


def doubling(config: Config, layers_of: Sequence[int], width: int = 96) -> list[Stage]:
    """Stages of which each is twice as wide, the first d: `embed_dim`."""
    base = size(config, "embed_dim", width)
    return [
        Stage(number, depth, 2**number * d, 2**number * base)
        for number, depth in enumerate(depths(config, "depths", layers_of))
    ]


def heads_of(config: Config, name: str, default: Sequence[int], widths: Sequence[int]) -> list[int]:
    """How many heads attend in each stage: a divisor of its width."""
    heads = per_stage(config, name, default, len(widths))
    for count, width in zip(heads, widths, strict=True):
        if width % count:
            raise ConfigError(f"config.json: {name}", f"{count} heads", f"a divisor of {width}")
    return heads


def inner_width(
    config: Config, stage: Stage, name: str = "mlp_ratio", default: float = 4.0
) -> Size:
    """That of a stage's feed-forward: a multiple of its own, rounded down."""
    return multiple(stage.width, stage.value, number(config, name, default), name)


def multiple(width: Size, value: int, ratio: float, name: str) -> Size:
    """``ratio``, the field ``name``, times a width whose value is ``value``, rounded down."""
    rounded = size({name: int(min(ratio * value, LARGEST_DIMENSION + 1))}, name)
    return int(ratio) * width if ratio == int(ratio) else rounded


def as_class(
    config: Config,
    prefix: str,
    body: Tensors,
    classes: Mapping[str, Tensors],
    *,
    alone: Tensors = (),
    symbols: Mapping[str, int] | None = None,
    buffers: Tensors = (),
    ignored: tuple[str, ...] = (),
    batch_norms: tuple[str, ...] = (),
) -> Layout:
    """A body, by itself with what it has ``alone``, or below ``prefix`` in the class that is named.

    ``classes`` are by the ends of their names, ``batch_norms`` the ends of the names of those. ``buffers``
    and ``ignored`` are the body's.
    """
    name, letters = class_name_of(config), dict(symbols or {})
    ending = next((each for each in classes if name.endswith(each)), "")
    if name and not name.endswith("Model"):
        if not ending:
            raise undeclared_class(config)
        below = f"{prefix}."
        body, buffers = (
            tuple(replace(tensor, name=below + tensor.name) for tensor in each)
            for each in (body, buffers)
        )
        ignored = tuple(below + each for each in ignored)
        alone = classes[ending]
        letters["C"] = number_of_classes(config)
    tensors = (*body, *alone)
    return Layout(
        config["model_type"],
        tensors,
        letters,
        buffers=(*buffers, *running(tensors, *batch_norms)),
        ignored=ignored,
    )


def classifier(width: Size, name: str = "classifier") -> Tensors:
    """A matrix over the pooled picture."""
    return head(name, C, inputs=as_polynomial(width))


def masked_images(config: Config, prefix: str, width: Size) -> Tensors:
    """What predicts the pixels of masked squares: a token in their place, and a map to what it stands for."""
    pixels = size(config, "encoder_stride", 32) ** 2 * size(config, "num_channels", 3)
    token = plain(f"{prefix}.embeddings.mask_token", components.PATCH_EMBEDDING, (1, 1, d))
    decoder = Map("decoder.0", components.LM_HEAD, (pixels, width, 1, 1))
    return (token, *tensors_of("", (decoder,)))
