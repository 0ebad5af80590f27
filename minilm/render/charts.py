"""What the HTML report draws, as JSON values of bounded size: treemap, heat map, curves, tensor list.

However many tensors a model has, at most some 2,000 boxes and 12,000 cells are drawn: what is too
much is added up. All text is plain (no control characters); the page makes it inert for plotly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from minilm.inspection.report import Report, TensorRow
from minilm.render.cells import format_shape
from minilm.render.component_groups import component_group
from minilm.render.document import Table
from minilm.safe_text import one_line

MAX_BOXES = 2000
MAX_COMPONENTS = 50
MAX_LAYERS = 256
MAX_MATRICES = 48
MAX_POINTS = 2000

_LAYER = re.compile(r"(?:^|\.)(\d{1,9})(?=\.)", re.ASCII)
_CURVES = (
    ("loss", ("train_loss", "val_loss")),
    ("bits per byte", ("val_bits_per_byte",)),
    ("learning rate", ("lr",)),
    ("tokens per second", ("tokens_per_second",)),
)


def treemap(report: Report) -> list[dict[str, Any]]:
    """Boxes {id, parent, label, count, share, detail, group}; a parent is the sum of its children.

    A component has its tensors inside where they add up to it, by layer where they are many.
    """
    total = report.parameters.total
    rows: dict[str, list[TensorRow]] = {}
    for row in report.tensors:
        rows.setdefault(row.component, []).append(row)
    components = [component for component in report.components if component.count > 0]
    if not components or not total:
        return []
    boxes: list[dict[str, Any]] = []

    def add(parent: str, label: str, count: int, detail: str, group: str) -> str:
        box = str(len(boxes))
        share = count / total
        boxes.append(
            {"id": box, "parent": parent, "label": one_line(label), "count": count}
            | {"share": share, "detail": one_line(detail), "group": group}
        )
        return box

    pairs = [(component.name, component.count) for component in components]
    root = add("", report.target, sum(count for _, count in pairs), "all components", "other")
    largest = _largest([(name, count, "") for name, count in pairs], MAX_COMPONENTS)
    for name, count, _ in largest:
        inside = [row for row in rows.get(name, []) if row.count > 0]
        group = component_group(name)
        box = add(root, name, count, f"{len(inside):,} tensors" if inside else "", group)
        if len(inside) > 1 and sum(row.count for row in inside) == count:
            for label, part, detail in _boxes(inside, MAX_BOXES // len(largest)):
                add(box, label, part, detail, group)
    return boxes


def heat_map(report: Report) -> dict[str, Any] | None:
    """Layers down, matrices across: {layers, matrices, counts, details, note}; None without layers."""
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
    if not cells:
        return None
    shown_layers, shown_matrices = layers[:MAX_LAYERS], matrices[:MAX_MATRICES]
    counts: list[list[int | None]] = []
    details: list[list[str]] = []
    for layer in shown_layers:
        layer_cells = [cells.get((layer, matrix), []) for matrix in shown_matrices]
        counts.append([sum(row.count for row in rows) or None for rows in layer_cells])
        details.append([_cell_detail(rows) for rows in layer_cells])
    note = _left_out(len(layers), len(shown_layers), len(matrices), len(shown_matrices), outside)
    prefixes = {layer.rpartition(".")[0] for layer in layers}
    short = len(prefixes) == 1
    return {
        "layers": [one_line(each.rpartition(".")[2] if short else each) for each in shown_layers],
        "matrices": [one_line(matrix.removesuffix(".weight")) for matrix in shown_matrices],
        "counts": counts,
        "details": details,
        "note": note,
    }


def curves(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """{loss: [{name, steps, seconds, values}, ..], ..} of a run's metrics, without what is not there."""
    curves_by_title: dict[str, list[dict[str, Any]]] = {}
    for title, keys in _CURVES:
        for key in keys:
            lines = _thinned([line for line in metrics if _is_finite(line.get(key))])
            if lines:
                curves_by_title.setdefault(title, []).append(
                    {
                        "name": key,
                        "steps": [_finite(line.get("step")) for line in lines],
                        "seconds": [_finite(line.get("seconds")) for line in lines],
                        "values": [line[key] for line in lines],
                    }
                )
    return curves_by_title


def mark_position(line: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """{steps, seconds} of a line of metrics, for a mark in the curves; None without one."""
    if line is None:
        return None
    return {"steps": _finite(line.get("step")), "seconds": _finite(line.get("seconds"))}


def evenly_spaced(lines: Sequence[Mapping[str, Any]], limit: int) -> list[Mapping[str, Any]]:
    """All lines, or ``limit`` of them, evenly, the first and the last among them."""
    if len(lines) <= limit:
        return list(lines)
    return [lines[round(n * (len(lines) - 1) / (limit - 1))] for n in range(limit)]


def tensor_table(table: Table) -> dict[str, Any]:
    """The list of tensors by columns, what repeats written once: 45,000 rows stay a few megabytes."""
    shapes: dict[tuple[str, str], int] = {}
    dtypes: dict[str, int] = {}
    components: dict[str, int] = {}
    names, indices = [], []
    for name, shape, dtype, elements, component in table.rows:
        names.append(name)
        indices.append(
            (
                shapes.setdefault((shape, elements.replace(",", "")), len(shapes)),
                dtypes.setdefault(dtype, len(dtypes)),
                components.setdefault(component, len(components)),
            )
        )
    return {
        "names": names,
        "shapes": [list(shape) for shape in shapes],
        "dtypes": list(dtypes),
        "components": list(components),
        "rows": indices,
    }


def layer_and_matrix(name: str) -> tuple[str, str] | None:
    """blocks.3.attention.query.weight -> (blocks.3, attention.query.weight); further numbers are one."""
    match = _LAYER.search(name)
    if match is None:
        return None
    matrix = re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name[match.end() + 1 :], flags=re.ASCII)
    return name[: match.end()], matrix


def _boxes(rows: Sequence[TensorRow], limit: int) -> list[tuple[str, int, str]]:
    """A component's tensors as (label, count, detail): each, else by layer; never too many."""
    if len(rows) <= limit:
        return [(row.name, row.count, f"{format_shape(row.shape)} {row.dtype}") for row in rows]
    groups: dict[str, list[int]] = {}
    for row in rows:
        cell = layer_and_matrix(row.name)
        groups.setdefault(cell[0] if cell else row.name, []).append(row.count)
    return _largest([(name, sum(g), f"{len(g):,} tensors") for name, g in groups.items()], limit)


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


def _left_out(
    layers: int, shown_layers: int, matrices: int, shown_matrices: int, outside: Sequence[TensorRow]
) -> str:
    notes = []
    if outside:
        count = sum(row.count for row in outside)
        tensors = "1 tensor" if len(outside) == 1 else f"{len(outside):,} tensors"
        notes.append(f"{tensors} of no layer ({count:,} elements) are not drawn.")
    if layers > shown_layers:
        notes.append(f"The first {shown_layers} of {layers:,} layers are drawn.")
    if matrices > shown_matrices:
        notes.append(f"The first {shown_matrices} of {matrices:,} matrices are drawn.")
    return " ".join(notes)


def _thinned(lines: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Every n-th line and the last one, at most MAX_POINTS."""
    stride = -(-len(lines) // (MAX_POINTS - 1)) or 1
    thinned = lines[::stride]
    return thinned if not lines or thinned[-1] is lines[-1] else [*thinned, lines[-1]]


def _natural(text: str) -> list[tuple[int, str]]:
    """A sort key that puts layer 10 after layer 2."""
    return [
        (int(part), "") if re.fullmatch(r"[0-9]{1,9}", part) else (-1, part)
        for part in text.split(".")
    ]


def _finite(value: Any) -> float | None:
    return value if _is_finite(value) else None


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
