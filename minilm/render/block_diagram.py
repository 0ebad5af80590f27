"""A model as a drawn diagram (SVG): its matrices in the order of the forward pass, with shapes and shares.

The same drawing stands in documents and in the page, whose calculator changes its numbers: what it changes
has a data attribute. The fill of a box is as wide as the share of its parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby

from markupsafe import Markup, escape

from minilm.ledger.layout import Layout, Role
from minilm.ledger.symbols import ONE, PRETTY, ZERO, Polynomial, format_polynomial
from minilm.render.component_groups import component_group

WIDTH, MARGIN, GAP = 400, 12, 6
TALL, LOW, HEAD, SPACE = (
    54,
    26,
    20,
    16,
)  # heights of a matrix, of a vector, of a title, between groups
# Matrices that are computed side by side, from the same input.
_BESIDE = ({"query", "key", "value"}, {"gate", "up"})


@dataclass(frozen=True)
class Part:
    """A component: its parameters, the shape of its largest tensor, whether it is in each layer.

    ``biases`` are those that are added to its results, ZERO without any.
    """

    name: str
    count: Polynomial
    shape: tuple[Polynomial, ...]
    in_layers: bool
    biases: Polynomial = ZERO

    @property
    def group(self) -> str:
        """Attention, feed-forward, norm, ...: its colour."""
        return component_group(self.name)

    @property
    def short(self) -> str:
        """Its name within its group."""
        for prefix in ("attention ", "feed-forward "):
            if self.in_layers and self.group != "norm" and self.name.startswith(prefix):
                return self.name[len(prefix) :]
        return self.name


def parts_of(layout: Layout) -> list[Part]:
    """The components of a layout, in the order of declaration."""
    parts = []
    for name, tensors in layout.components().items():
        largest = max(tensors, key=lambda tensor: layout.value(tensor))
        count = sum((tensor.count for tensor in tensors), ZERO)
        biases = [
            math.prod(tensor.shape, start=ONE)
            for tensor in tensors
            if tensor.role is Role.ADDED and tensor is not largest
        ]
        in_layers = largest.repeat != ONE
        parts.append(Part(name, count, largest.shape, in_layers, sum(biases, ZERO)))
    return parts


def diagram(parts: Sequence[Part], symbols: Mapping[str, int], *, alone: bool = False) -> Markup:
    """The drawing; with ``alone`` a file of its own, with its colours for light and dark."""
    total = sum(part.count.value(symbols) for part in parts) or 1
    numbers = {part.name: number for number, part in enumerate(parts)}
    drawing: list[Markup] = []
    top = 4.0
    for in_layers, group in groupby(parts, key=lambda part: part.in_layers):
        members = list(group)
        if not in_layers:
            for part in members:
                place = (float(MARGIN), top, float(WIDTH - 2 * MARGIN))
                drawing.append(_box(part, numbers[part.name], place, symbols, total))
                top += _height(part) + SPACE
            continue
        start, top = top, top + HEAD + 4
        boxes = []
        for row in _rows(members):
            width = (WIDTH - 4 * MARGIN - GAP * (len(row) - 1)) / len(row)
            for column, part in enumerate(row):
                place = (2 * MARGIN + column * (width + GAP), top, width)
                boxes.append(_box(part, numbers[part.name], place, symbols, total))
            top += _height(row[0]) + GAP
        top += 4
        drawing += [
            Markup('<rect class="frame" x="{}" y="{:g}" width="{}" height="{:g}" rx="8"/>').format(
                MARGIN, start, WIDTH - 2 * MARGIN, top - start
            ),
            Markup('<text x="{}" y="{:g}">block, repeated in {} layers</text>').format(
                2 * MARGIN, start + 16, _layer_count(symbols)
            ),
            *boxes,
        ]
        top += SPACE
    height = top - SPACE + 4
    opening = Markup(
        '<svg class="diagram" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {:g}" role="img" '
        'aria-label="The model as a diagram: every matrix with its shape and its share">'
    ).format(WIDTH, height)
    style = Markup("<style>\n{}</style>").format(Markup(_style_alone())) if alone else Markup("")
    paper = Markup('<rect class="paper" width="100%" height="100%"/>') if alone else Markup("")
    return Markup("\n").join([opening + style + paper, *drawing, Markup("</svg>")])


def _layer_count(symbols: Mapping[str, int]) -> Markup:
    return Markup('<tspan data-letter="L">{:,}</tspan>').format(symbols.get("L", 1))


def _rows(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """The parts line by line."""
    row: list[Part] = []
    for part in parts:
        names = {each.short for each in row}
        if row and any(names | {part.short} <= beside for beside in _BESIDE):
            row.append(part)
            continue
        if row:
            yield row
        row = [part]
    if row:
        yield row


def _height(part: Part) -> int:
    return TALL if len(part.shape) > 1 else LOW


def _box(
    part: Part,
    number: int,
    place: tuple[float, float, float],
    symbols: Mapping[str, int],
    total: int,
) -> Markup:
    left, top, width = place
    share = part.count.value(symbols) / total
    letters = _sizes(part, _side)
    numeric = _sizes(part, lambda side: f"{side.value(symbols):,}")
    lines = [
        Markup(
            '<rect class="{} fill" x="{:g}" y="{:g}" width="{:.2f}" height="{}" rx="3" '
            'data-fill="{}" data-full="{:g}"/>'
        ).format(part.group, left, top, share * width, _height(part), number, width),
        Markup('<rect class="box" x="{:g}" y="{:g}" width="{:g}" height="{}" rx="3"/>').format(
            left, top, width, _height(part)
        ),
        _text(left + 7, top + 17, part.short, "name"),
        _text(left + width - 7, top + 17, f"{share:.1%}", "share", f'data-share="{number}"'),
    ]
    if _height(part) == TALL:
        lines.append(_text(left + 7, top + 33, letters, "letters"))
        lines.append(_text(left + 7, top + 47, numeric, "", f'data-shape="{number}"'))
    else:
        lines.append(_text(left + width * 0.62, top + 17, numeric, "", f'data-shape="{number}"'))
    return Markup("<g>{}</g>").format(Markup("").join(lines))


def _sizes(part: Part, side_text: Callable[[Polynomial], str]) -> str:
    """The shape, and what biases add: d × d + d."""
    text = " × ".join(map(side_text, part.shape))
    return f"{text} + {side_text(part.biases)}" if part.biases != ZERO else text


def _side(side: Polynomial) -> str:
    text = format_polynomial(side, PRETTY)
    return f"({text})" if len(side.terms) > 1 else text


def _text(x: float, y: float, value: str, kind: str, data: str = "") -> Markup:
    return Markup('<text x="{:g}" y="{:g}" class="{}" {}>{}</text>').format(
        x, y, kind, Markup(data), escape(value)
    )


def _style_alone() -> str:
    style = resources.files("minilm.render").joinpath("templates/diagram.css")
    return style.read_text(encoding="utf-8")
