"""What convolutional networks are put together from: convolutions, batch norms, stages of blocks, classes.

A filter runs over every place of a picture, so its cost is none of a token: no FLOPs are told. Each stage has
widths of its own, which stand as numbers; L1, L2, ... are its layers. A batch norm's running statistics are
buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.config_fields import layers, size
from minilm.architectures.task_heads import (
    C,
    class_name_of,
    head,
    number_of_classes,
    undeclared_class,
)
from minilm.architectures.vision_tower import Part, once
from minilm.config.validation import LARGEST_DIMENSION, LARGEST_LAYER_COUNT
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role
from minilm.ledger.symbols import Polynomial, as_polynomial, symbol

Config = Mapping[str, Any]
Width = Polynomial | int


def convolution(
    name: str,
    outputs: Width,
    inputs: Width,
    kernel: int | tuple[int, int] = 1,
    *,
    bias: bool = False,
    component: str = components.CONVOLUTIONS,
) -> Part:
    """``name.weight`` (outputs, inputs, kernel, kernel); the inputs are those of one group."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    weight = once(f"{name}.weight", (outputs, inputs, *sides), component=component)
    if not bias:
        return Part((weight,), {})
    return Part((weight, once(f"{name}.bias", (outputs,), Role.ADDED, component=component)), {})


def linear(name: str, outputs: Width, inputs: Width, component: str, *, bias: bool = True) -> Part:
    """``name.weight`` (outputs, inputs), used at every place, and ``name.bias``."""
    weight = once(f"{name}.weight", (outputs, inputs), component=component)
    added = (once(f"{name}.bias", (outputs,), Role.ADDED, component=component),) if bias else ()
    return Part((weight, *added), {})


def norm(name: str, width: Width, component: str = components.CONVOLUTION_NORM) -> Part:
    """``name.weight`` and ``name.bias`` (width,) of a layer or group norm."""
    weight = once(f"{name}.weight", (width,), Role.SCALED, component=component)
    return Part((weight, once(f"{name}.bias", (width,), Role.ADDED, component=component)), {})


def batch_norm(name: str, width: Width, component: str = components.CONVOLUTION_NORM) -> Part:
    """A norm, and what it has seen, which is no parameter."""
    running = (
        *(
            once(f"{name}.running_{kind}", (width,), component=component)
            for kind in ("mean", "var")
        ),
        once(f"{name}.num_batches_tracked", (), component=component),
    )
    return norm(name, width, component)._replace(buffers=running)


def normed_convolution(
    name: str,
    outputs: Width,
    inputs: Width,
    kernel: int = 1,
    component: str = components.CONVOLUTIONS,
) -> Part:
    """``name.convolution`` and ``name.normalization``, a batch norm."""
    return joined(
        convolution(f"{name}.convolution", outputs, inputs, kernel, component=component),
        batch_norm(f"{name}.normalization", outputs),
    )


def depthwise(name: str, width: Width, kernel: int = 3) -> Part:
    """As `normed_convolution`, each channel by itself."""
    component = components.DEPTHWISE_CONVOLUTIONS
    return normed_convolution(name, width, 1, kernel, component)


def squeeze_excitation(names: tuple[str, str], width: int, inner: int) -> Part:
    """What weighs the channels: one map to ``inner`` of them and one back, with biases."""
    part = components.SQUEEZE_EXCITATION
    return joined(
        convolution(names[0], inner, width, bias=True, component=part),
        convolution(names[1], width, inner, bias=True, component=part),
    )


def joined(*parts: Part) -> Part:
    """All of them as one."""
    return Part(
        tuple(tensor for part in parts for tensor in part.tensors),
        {letter: value for part in parts for letter, value in part.symbols.items()},
        tuple(tensor for part in parts for tensor in part.buffers),
    )


NOTHING = joined()


def frozen(part: Part) -> Part:
    """With its batch norms as detectors have them: nothing of them is trained, nor are batches counted."""
    norms = tuple(t for t in part.tensors if t.component == components.CONVOLUTION_NORM)
    kept = tuple(t for t in part.buffers if not t.name.endswith("num_batches_tracked"))
    others = tuple(t for t in part.tensors if t.component != components.CONVOLUTION_NORM)
    return Part(others, part.symbols, (*norms, *kept))


def under(prefix: str, part: Part) -> Part:
    """With ``prefix`` before each name."""
    tensors, buffers = (
        tuple(replace(tensor, name=prefix + tensor.name) for tensor in each)
        for each in (part.tensors, part.buffers)
    )
    return Part(tensors, part.symbols, buffers)


def repeated(part: Part, number: int, depth: int, *, start: int = 0, first: int = 0) -> Part:
    """Stage ``number``, of ``depth`` layers from that of number ``start`` on: those but the ``first`` ones.

    {i} in the names stands for a layer's number.
    """
    if depth == first:
        return NOTHING
    letter = f"L{number}"
    repeat, layers = symbol(letter) - first, range(start + first, start + depth)
    tensors, buffers = (
        tuple(replace(tensor, repeat=repeat, layers=layers) for tensor in each)
        for each in (part.tensors, part.buffers)
    )
    return Part(tensors, {**part.symbols, letter: depth}, buffers)


Block = Callable[[str, int, int], Part]  # of a name, inputs and outputs


def stage(
    name: str, number: int, depth: int, sides: tuple[int, int], block: Block, *, start: int = 0
) -> Part:
    """Stage ``number``: blocks ``name.{start}`` and on, of which the first has other inputs than outputs."""
    inputs, outputs = sides
    further = block(f"{name}.{{i}}", outputs, outputs)
    return joined(
        block(f"{name}.{start}", inputs, outputs),
        repeated(further, number, depth, start=start, first=1),
    )


def classifier(config: Config, name: str, width: int) -> Part:
    """A matrix over the pooled picture, as many rows as config.json has classes."""
    return Part(head(name, C, inputs=as_polynomial(width)), {"C": number_of_classes(config)})


def as_class(config: Config, classes: Mapping[str, Part]) -> Layout:
    """The class that config.json names, of those whose names end so; the first where it names none."""
    name = class_name_of(config)
    endings = [ending for ending in classes if not name or name.endswith(ending)]
    if not endings:
        raise undeclared_class(config)
    part = classes[endings[0]]
    return Layout(config["model_type"], part.tensors, part.symbols, buffers=part.buffers)


def listed(
    config: Config, name: str, default: Sequence[Any], count: int | None = None
) -> list[Any]:
    """A list, by default ``default``, of at least ``count`` things, of which the first are taken."""
    value = default if config.get(name) is None else config[name]
    least = 1 if count is None else count
    if not isinstance(value, (list, tuple)) or not least <= len(value) <= LARGEST_LAYER_COUNT:
        raise ConfigError(f"config.json: {name}", shortened(value), f"a list of {least} or more")
    return list(value[:count])


def widths(
    config: Config, name: str, default: Sequence[int], count: int | None = None
) -> list[int]:
    """A size for each stage."""
    return [size({name: each}, name) for each in listed(config, name, default, count)]


def depths(
    config: Config, name: str, default: Sequence[int], count: int | None = None
) -> list[int]:
    """A number of layers for each stage."""
    return [layers({name: each}, name) for each in listed(config, name, default, count)]


def output_maps(config: Config, sizes: list[int], default: Sequence[int]) -> list[tuple[str, int]]:
    """The maps that a backbone gives out: the stem's or a stage's name, and its width of ``sizes``.

    ``default`` are the depths of its stages where config.json gives none.
    """
    count = len(depths(config, "depths", default))
    names = ["stem", *(f"stage{number}" for number in range(1, count + 1))]
    chosen = config.get("out_features")
    field = "out_indices" if chosen is None else "out_features"
    if chosen is None:
        chosen = config.get("out_indices")
        chosen = [-1] if chosen is None else chosen
    known = range(-len(names), len(names)) if field == "out_indices" else names
    if not isinstance(chosen, (list, tuple)) or any(
        isinstance(each, bool) or each not in known for each in chosen
    ):
        raise ConfigError(f"config.json: {field}", shortened(chosen), f"of {', '.join(names)}")
    own = [names[each] if isinstance(each, int) else each for each in chosen]
    return [(name, width) for name, width in zip(names, sizes, strict=False) if name in own]


def in_range(value: float, name: str) -> float:
    """``value``, a width or depth that follows from a factor in the field ``name``."""
    if not 0 <= value <= LARGEST_DIMENSION:
        raise ConfigError(f"config.json: {name}", shortened(value), "a smaller factor, 0 or more")
    return value


def divisible(value: float, name: str, divisor: int = 8, least: int | None = None) -> int:
    """The multiple of ``divisor`` that is nearest, but not a tenth smaller; ``least`` at least."""
    nearest = int(in_range(value, name) + divisor / 2) // divisor * divisor
    width = max(divisor if least is None else least, nearest)
    return width + divisor if width < 0.9 * value else width
