"""The modules of a model as an indented table: shapes, elements and FLOPs, layers that are alike once.

The modules are those that the names of the tensors spell (blocks.3.attention.query.weight); numbered
ones with the same tensors inside are one row: ``0-3: 4 × block``. A weight and its bias stand in the row of
their module, other tensors in rows of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from minilm.inspection.report import TensorRow
from minilm.render.cells import format_shape
from minilm.render.document import Column, Paragraph, Table
from minilm.safe_text import one_line
from minilm.units import format_count

MAX_ROWS = 200
MAX_DEPTH = 12  # of modules; deeper ones stay part of a name
MAX_RANGES = 4
GUIDE = "│ "


@dataclass(slots=True)
class _Module:
    """``kind`` is equal for modules that hold the same tensors, whatever their own names are."""

    tensors: dict[str, TensorRow] = field(default_factory=dict)
    children: dict[str, _Module] = field(default_factory=dict)
    kind: int = 0
    elements: int = 0
    flops: float = 0


def layer_table(rows: Sequence[TensorRow]) -> tuple[Table, Paragraph | None]:
    """The tree, with the sum as its last row, and a sentence where it is cut."""
    root = _Module()
    for row in rows:
        *path, name = one_line(row.name).split(".", MAX_DEPTH)
        module = root
        for part in path:
            child = module.children.get(part)
            if child is None:
                child = module.children[part] = _Module()
            module = child
        module.tensors[name] = row
    _sum_up(root, {})
    cells = [*_tensor_rows(root.tensors, 0), *_children(root, "", 0)]
    cut = None
    if len(cells) > MAX_ROWS:
        cut = Paragraph(f"The first {MAX_ROWS} of {len(cells):,} rows are shown.", full_only=True)
    total = ("total", "", f"{root.elements:,}", format_count(root.flops))
    columns: tuple[Column, ...] = (
        Column("layer", "code"),
        *(Column(title, "number") for title in ("shape", "elements", "FLOPs a token")),
    )
    table_rows = (*cells[:MAX_ROWS], total)
    if not any(row.flops for row in rows):
        columns, table_rows = columns[:-1], tuple(row[:-1] for row in table_rows)
    return Table(columns, table_rows, total_last=True, full_only=True), cut


def _sum_up(module: _Module, kinds: dict[object, int]) -> None:
    """Set the sums and the kinds, from the leaves up."""
    tensors: list[object] = []
    for name, row in module.tensors.items():
        module.elements += row.count
        module.flops += row.flops or 0
        tensors.append((name, row.shape, row.dtype))
    children: list[object] = []
    for name, child in module.children.items():
        _sum_up(child, kinds)
        module.elements += child.elements
        module.flops += child.flops
        children.append((name, child.kind))
    module.kind = kinds.setdefault((tuple(tensors), tuple(children)), len(kinds))


def _tensor_rows(tensors: Mapping[str, TensorRow], level: int) -> Iterator[tuple[str, ...]]:
    for name, row in tensors.items():
        sums = (f"{row.count:,}", format_count(row.flops or 0))
        yield GUIDE * level + name, format_shape(row.shape), *sums


def _children(parent: _Module, parent_name: str, level: int) -> Iterator[tuple[str, ...]]:
    for names in _alike(parent.children):
        module = parent.children[names[0]]
        label, times = names[0], ""
        if len(names) > 1:
            singular = parent_name.removesuffix("s") or "layer"
            times = f"{len(names):,} × "
            label = f"{_ranges([int(name) for name in names])}: {times}{singular}"
        others = dict(module.tensors)
        weight, bias = others.pop("weight", None), others.pop("bias", None)
        shapes = [] if weight is None else [format_shape(weight.shape)]
        shapes += [] if bias is None else [f"bias {format_shape(bias.shape)}"]
        sums = (f"{times}{module.elements:,}", f"{times}{format_count(module.flops)}")
        yield GUIDE * level + label, ", ".join(shapes), *sums
        yield from _tensor_rows(others, level + 1)
        yield from _children(module, names[0], level + 1)


def _alike(children: dict[str, _Module]) -> Iterable[list[str]]:
    """The names of the children, the numbers of those of one kind together."""
    groups: dict[object, list[str]] = {}
    for name, child in children.items():
        is_number = name.isascii() and name.isdecimal() and len(name) < 10
        groups.setdefault(child.kind if is_number else name, []).append(name)
    return groups.values()


def _ranges(numbers: list[int]) -> str:
    """0, 1, 2, 5 -> 0-2, 5; of many ranges the first ones and the last."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    texts = [f"{first}" if first == last else f"{first}-{last}" for first, last in ranges]
    if len(texts) > MAX_RANGES:
        texts = [*texts[: MAX_RANGES - 1], "…", texts[-1]]
    return ", ".join(texts)
