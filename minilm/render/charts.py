"""What the page draws beside its tables, of bounded size: treemap, heat map, tensor list.

However many tensors a model has, at most some hundred boxes and rows are drawn: what is too much is
added up. All text is plain (no control characters) and not yet escaped.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from minilm.inspection.names import layer_and_matrix
from minilm.inspection.report import Report, TensorRow
from minilm.render.cells import format_shape
from minilm.render.component_groups import component_group
from minilm.render.document import Table
from minilm.safe_text import one_line
from minilm.units import counted

Item = TypeVar("Item")

MAX_BOXES = 600
MAX_COMPONENTS = 50
MAX_ROWS = 64
MAX_MATRICES = 32
ASPECT = 2.4  # of the treemap on a wide screen


@dataclass(frozen=True)
class Box:
    """A rectangle, in percent of the one around it, and the smaller ones in it."""

    label: str
    count: int
    share: float
    detail: str
    group: str
    rectangle: tuple[float, float, float, float]
    """Left, top, width, height."""
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class HeatMap:
    """Layers down, matrices across. A cell is (0 to 1 on a logarithmic scale, or None; what it holds)."""

    matrices: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[float | None, str], ...]], ...]
    note: str


def treemap(report: Report) -> list[Box]:
    """A box a component, its area its share; in it its tensors, where they add up to it.

    Where they are many, a box inside is a layer.
    """
    rows: dict[str, list[TensorRow]] = {}
    for row in report.tensors:
        rows.setdefault(row.component, []).append(row)
    pairs = [(c.name, c.count, "") for c in report.components if c.count > 0]
    largest = sorted(_largest(pairs, MAX_COMPONENTS), key=lambda each: -each[1])
    total = sum(count for _, count, _ in largest)
    boxes = []
    for (name, count, _), rectangle in zip(
        largest, squarified([count for _, count, _ in largest], ASPECT), strict=True
    ):
        inside = [row for row in rows.get(name, []) if row.count > 0]
        group = component_group(name)
        inner: list[Box] = []
        if len(inside) > 1 and sum(row.count for row in inside) == count:
            parts = _boxes(inside, MAX_BOXES // len(largest))
            parts.sort(key=lambda part: -part[1])
            ratio = ASPECT * rectangle[2] / max(rectangle[3], 1e-9)
            inner = [
                Box(one_line(label), part, part / total, one_line(detail), group, place)
                for (label, part, detail), place in zip(
                    parts, squarified([part for _, part, _ in parts], ratio), strict=True
                )
            ]
        detail = _tensors(len(inside)) if inside else ""
        label = one_line(name)
        boxes.append(Box(label, count, count / total, detail, group, rectangle, boxes=tuple(inner)))
    return boxes


def squarified(areas: Sequence[int], ratio: float) -> list[tuple[float, float, float, float]]:
    """Rectangles (left, top, width, height in percent) of these areas, the largest first.

    They fill a rectangle that is ``ratio`` times as wide as high, each nearly square (Bruls, Huizing
    and van Wijk 2000).
    """
    left, top, width, height = 0.0, 0.0, ratio, 1.0
    scale = ratio / (sum(areas) or 1)
    rectangles: list[tuple[float, float, float, float]] = []
    rest = [area * scale for area in areas]
    while rest:
        side = min(width, height)
        count = 1
        while count < len(rest) and _worst(rest[: count + 1], side) <= _worst(rest[:count], side):
            count += 1
        row, rest = rest[:count], rest[count:]
        thickness = sum(row) / side
        offset = 0.0
        for area in row:
            length = area / thickness
            if width >= height:
                rectangles.append((left, top + offset, thickness, length))
            else:
                rectangles.append((left + offset, top, length, thickness))
            offset += length
        if width >= height:
            left, width = left + thickness, max(width - thickness, 1e-12)
        else:
            top, height = top + thickness, max(height - thickness, 1e-12)
    return [(100 * x / ratio, 100 * y, 100 * w / ratio, 100 * h) for x, y, w, h in rectangles]


def _worst(row: Sequence[float], side: float) -> float:
    """The largest ratio of the sides of rectangles that stand in a row along ``side``."""
    total = sum(row)
    return max(side**2 * max(row) / total**2, total**2 / (side**2 * min(row)))


def heat_map(report: Report) -> HeatMap | None:
    """The elements of each matrix in each layer; None where all layers have the same.

    Neighbouring layers that are alike are one row.
    """
    cells: dict[tuple[str, str], list[TensorRow]] = {}
    outside: list[TensorRow] = []
    for row in report.tensors:
        cell = layer_and_matrix(row.name)
        if cell is None:
            outside.append(row)
        else:
            cells.setdefault(cell, []).append(row)
    layers = sorted({layer for layer, _ in cells}, key=_natural)
    order = {component.name: number for number, component in enumerate(report.components)}
    first = {matrix: rows[0].component for (_, matrix), rows in reversed(cells.items())}
    matrices = sorted(
        dict.fromkeys(matrix for _, matrix in cells),
        key=lambda matrix: order.get(first[matrix], len(order)),
    )
    shown = matrices[:MAX_MATRICES]

    def content(layer: str) -> list[list[tuple[tuple[int, ...], str]]]:
        return [
            [(row.shape, row.dtype) for row in cells.get((layer, matrix), [])] for matrix in shown
        ]

    runs = [list(run) for _, run in groupby(layers, content)]
    if len(runs) < 2:
        return None
    logs = [math.log(sum(row.count for row in rows) or 1) for rows in cells.values()]
    low, span = min(logs), (max(logs) - min(logs)) or 1
    prefixes = {layer.rpartition(".")[0] for layer in layers}
    rows_drawn = []
    for run in runs[:MAX_ROWS]:
        names = [each.rpartition(".")[2] if len(prefixes) == 1 else each for each in run]
        label = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        line = []
        for matrix in shown:
            tensors = cells.get((run[0], matrix), [])
            count = sum(row.count for row in tensors)
            shade = (math.log(count) - low) / span if count else None
            line.append((shade, _cell_detail(tensors)))
        rows_drawn.append((one_line(label), tuple(line)))
    return HeatMap(
        tuple(one_line(matrix.removesuffix(".weight")) for matrix in shown),
        tuple(rows_drawn),
        _left_out(len(runs), len(matrices), outside),
    )


def evenly_spaced(lines: Sequence[Item], limit: int) -> list[Item]:
    """All of them, or ``limit`` of them, evenly, the first and the last among them."""
    if len(lines) <= limit:
        return list(lines)
    return [lines[round(n * (len(lines) - 1) / (limit - 1))] for n in range(limit)]


def tensor_table(table: Table) -> dict[str, Any]:
    """The list of tensors by columns, what repeats written once: 70,000 rows stay under a megabyte.

    A name is how many letters it shares with the one before, and which of ``endings`` follows.
    """
    kinds: dict[tuple[str, ...], int] = {}
    endings: dict[str, int] = {}
    names: list[int] = []
    rows = []
    before = ""
    for name, *kind in table.rows:
        # A script counts other letters than ASCII differently.
        same = _shared_prefix(before, name) if (before + name).isascii() else 0
        names += [same, endings.setdefault(name[same:], len(endings))]
        before = name
        rows.append(kinds.setdefault(tuple(kind), len(kinds)))
    return {
        "names": names,
        "endings": list(endings),
        "kinds": [list(kind) for kind in kinds],
        "rows": rows,
    }


def _shared_prefix(a: str, b: str) -> int:
    return bisect_left(range(len(a)), True, key=lambda last: not b.startswith(a[: last + 1]))


def _boxes(rows: Sequence[TensorRow], limit: int) -> list[tuple[str, int, str]]:
    """A component's tensors as (label, count, detail): each, else by layer; never too many."""
    if len(rows) <= limit:
        return [(row.name, row.count, f"{format_shape(row.shape)} {row.dtype}") for row in rows]
    groups: dict[str, list[int]] = {}
    for row in rows:
        cell = layer_and_matrix(row.name)
        groups.setdefault(cell[0] if cell else row.name, []).append(row.count)
    return _largest([(name, sum(g), _tensors(len(g))) for name, g in groups.items()], limit)


def _largest(boxes: list[tuple[str, int, str]], limit: int) -> list[tuple[str, int, str]]:
    """All boxes in their order, or the largest and the sum of the others."""
    if len(boxes) <= limit:
        return boxes
    ordered = sorted(boxes, key=lambda box: box[1], reverse=True)
    rest = ordered[limit - 1 :]
    others = (f"{len(rest):,} others", sum(count for _, count, _ in rest), "")
    return [*ordered[: limit - 1], others]


def _cell_detail(rows: Sequence[TensorRow]) -> str:
    if not rows:
        return "no such tensor"
    count = sum(row.count for row in rows)
    shapes = sorted({format_shape(row.shape) for row in rows})
    dtypes = sorted({row.dtype for row in rows})
    shape = shapes[0] if len(shapes) == 1 else f"{len(shapes)} shapes"
    many = f"{len(rows):,} tensors of " if len(rows) > 1 else ""
    return one_line(f"{count:,} elements: {many}{shape}, {', '.join(dtypes[:3])}")


def _left_out(runs: int, matrices: int, outside: Sequence[TensorRow]) -> str:
    notes = []
    if outside:
        count = sum(row.count for row in outside)
        verb = "is" if len(outside) == 1 else "are"
        notes.append(f"{_tensors(len(outside))} of no layer ({count:,} elements) {verb} not drawn.")
    if runs > MAX_ROWS:
        notes.append(f"The first {MAX_ROWS} of {runs:,} rows are drawn.")
    if matrices > MAX_MATRICES:
        notes.append(f"The first {MAX_MATRICES} of {matrices:,} matrices are drawn.")
    return " ".join(notes)


def _tensors(count: int) -> str:
    return counted(count, "tensor")


def _natural(layer: str) -> tuple[str, int]:
    """A sort key that puts layer 10 after layer 2, and a layer after the modules beside it."""
    number = layer.rpartition(".")[2]
    modules = layer.removesuffix(number) + chr(sys.maxunicode)
    return modules.replace(".", "\0"), int(number)
