"""What networks over pictures are put together from: maps, norms, attention, repeated layers, classes.

A filter runs over every place of a picture, and a square of one stage is none of the next, so no cost is that
of a token: no FLOPs are told. A batch norm's running statistics are buffers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as shortened
from typing import TypeVar

from minilm.architectures.config_fields import Config, depths
from minilm.architectures.task_heads import C, class_ending, head, number_of_classes
from minilm.architectures.vision_tower import Part, Width, changed, matrix, once, running_statistics
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role
from minilm.ledger.symbols import ZERO, as_polynomial, symbol

BACKBONE, IMAGES, MASKED_IMAGES = "Backbone", "ForImageClassification", "ForMaskedImageModeling"
AnyWidth = TypeVar("AnyWidth", bound=Width)


def convolution(
    name: str,
    outputs: Width,
    inputs: Width,
    kernel: int | tuple[int, int] = 1,
    component: str = components.CONVOLUTIONS,
    *,
    bias: bool = False,
) -> Part:
    """``name.weight`` (outputs, inputs, kernel, kernel); the inputs are those of one group."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    return Part(matrix(name, (outputs, inputs, *sides), component=component, bias=bias))


def linear(name: str, outputs: Width, inputs: Width, component: str, *, bias: bool = True) -> Part:
    """``name.weight`` (outputs, inputs), used at every place, and ``name.bias``."""
    return Part(matrix(name, (outputs, inputs), component=component, bias=bias))


def norm(name: str, width: Width, component: str = components.CONVOLUTION_NORM) -> Part:
    """``name.weight`` and ``name.bias`` (width,) of a layer or group norm."""
    weight = once(f"{name}.weight", (width,), Role.SCALED, component=component)
    return Part((weight, once(f"{name}.bias", (width,), Role.ADDED, component=component)))


def batch_norm(name: str, width: Width, component: str = components.CONVOLUTION_NORM) -> Part:
    """A norm, and what it has seen, which is no parameter."""
    seen = running_statistics(name, width, component)
    return norm(name, width, component)._replace(buffers=seen)


def parameter(name: str, shape: tuple[Width, ...], component: str, role: Role = Role.ONCE) -> Part:
    """One tensor by its whole name."""
    return Part((once(name, shape, role, component=component),))


def attention(names: str, width: Width, *, bias: bool = True) -> Part:
    """Query, key and value, whose biases are a setting, and output: squares of one width."""
    query, key, value, output = names.split()
    return joined(
        linear(query, width, width, components.ATTENTION_QUERY, bias=bias),
        linear(key, width, width, components.ATTENTION_KEY, bias=bias),
        linear(value, width, width, components.ATTENTION_VALUE, bias=bias),
        linear(output, width, width, components.ATTENTION_OUTPUT),
    )


def feed_forward(names: str, width: Width, inner: Width, *, convolves: bool = False) -> Part:
    """To the inner width and back; ``convolves``: by convolutions that see one place."""
    up, down = names.split()
    kernel = (1, 1) if convolves else ()
    part = components.FEED_FORWARD_UP
    return Part(
        (
            *matrix(up, (inner, width, *kernel), component=part),
            *matrix(down, (width, inner, *kernel), component=components.FEED_FORWARD_DOWN),
        )
    )


def norms(names: str, width: Width) -> Part:
    """Before attention and before the feed-forward."""
    first, second = names.split()
    return joined(
        norm(first, width, components.ATTENTION_NORM),
        norm(second, width, components.FEED_FORWARD_NORM),
    )


def layer_scales(names: str, *shape: Width) -> Part:
    """Gains of what attention and the feed-forward add."""
    parts = (components.ATTENTION_OUTPUT_NORM, components.FEED_FORWARD_OUTPUT_NORM)
    return joined(
        *(
            parameter(name, shape, part, Role.SCALED)
            for name, part in zip(names.split(), parts, strict=True)
        )
    )


def joined(*parts: Part) -> Part:
    """All of them as one."""
    return Part(
        tuple(tensor for part in parts for tensor in part.tensors),
        {letter: value for part in parts for letter, value in part.symbols.items()},
        tuple(tensor for part in parts for tensor in part.buffers),
    )


NOTHING = joined()


def under(prefix: str, *parts: Part) -> Part:
    """All of them, with ``prefix`` before each name."""
    return changed(joined(*parts), lambda t: {"name": prefix + t.name})


def in_layers(part: Part, repeat: Width, layers: range | None = None) -> Part:
    """In each of ``repeat`` layers, whose numbers, for which {i} stands, are ``layers`` or the first ones."""
    many = as_polynomial(repeat)
    if many == ZERO:
        return NOTHING
    return changed(part, lambda _: {"repeat": many, "layers": layers})


def repeated(part: Part, number: int, depth: int, *, start: int = 0, first: int = 0) -> Part:
    """Stage ``number``, of ``depth`` layers from that of number ``start`` on: those but the ``first`` ones.

    L1, L2, ... are the layers of the stages.
    """
    if depth == first:
        return NOTHING
    letter = f"L{number}"
    layers = in_layers(part, symbol(letter) - first, range(start + first, start + depth))
    return layers._replace(symbols={**part.symbols, letter: depth})


def classifier(config: Config, name: str, width: Width) -> Part:
    """A matrix over the pooled picture, as many rows as config.json has classes."""
    own = head(name, C, inputs=as_polynomial(width))
    return Part(own, {"C": number_of_classes(config)})


def place_classifier(config: Config, name: str, width: Width) -> Part:
    """One of every place of the picture."""
    own = convolution(name, C, width, component=components.CLASSIFIER, bias=True)
    return own._replace(symbols={"C": number_of_classes(config)})


def output_maps(
    config: Config, widths: Sequence[AnyWidth], default: Sequence[int]
) -> list[tuple[str, AnyWidth]]:
    """The maps that a backbone gives out: the stem's or a stage's name, and its width of ``widths``.

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
    if (
        not isinstance(chosen, (list, tuple))
        or not chosen
        or any(isinstance(each, bool) or each not in known for each in chosen)
    ):
        raise ConfigError(f"config.json: {field}", shortened(chosen), f"of {', '.join(names)}")
    own = [names[each] if isinstance(each, int) else each for each in chosen]
    if len({*own}) < len(own):
        raise ConfigError(f"config.json: {field}", shortened(chosen), "each map once")
    return [(name, width) for name, width in zip(names, widths, strict=False) if name in own]


def output_norms(config: Config, widths: Sequence[Width], default: Sequence[int]) -> Part:
    """Of the maps that a backbone gives out: those of its stages have these ``widths``."""
    return joined(
        *(
            norm(f"hidden_states_norms.{name}", width, components.FINAL_NORM)
            for name, width in output_maps(config, (widths[0], *widths), default)
        )
    )


def as_class(config: Config, classes: Mapping[str, Part]) -> Layout:
    """The class that config.json names, of those whose names end so; the first where it names none."""
    part = classes[class_ending(config, classes)]
    return Layout(config["model_type"], part.tensors, part.symbols, buffers=part.buffers)
