"""The modules of a model as an indented table: shapes, elements and FLOPs, layers that are alike once.

The modules are those that the names of the tensors spell (blocks.3.attention.query.weight); numbered
ones with the same tensors inside are one row: ``0-3: 4 × block``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from minilm.inspection.report import TensorRow
from minilm.render.cells import format_shape
from minilm.render.document import Column, Paragraph, Table
from minilm.safe_text import one_line
from minilm.units import format_count

MAX_ROWS = 200
MAX_DEPTH = 12  # of modules; deeper ones stay part of a name
MAX_RANGES = 4
MAX_SHAPES = 4
GUIDE = "│ "


@dataclass
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
            module = module.children.setdefault(part, _Module())
        module.tensors[name] = row
    _sum_up(root, {})
    cells = [*_bare_tensors(root), *_children(root, "", 0)]
    cut = None
    if len(cells) > MAX_ROWS:
        cut = Paragraph(f"The first {MAX_ROWS} of {len(cells):,} rows are shown.", detail=True)
    total = ("total", "", f"{root.elements:,}", format_count(root.flops))
    columns: tuple[Column, ...] = (
        Column("layer", "code"),
        *(Column(title, "number") for title in ("shape", "elements", "FLOPs a token")),
    )
    table_rows = (*cells[:MAX_ROWS], total)
    if not any(row.flops for row in rows):
        columns, table_rows = columns[:-1], tuple(row[:-1] for row in table_rows)
    return Table(columns, table_rows, total_last=True, detail=True), cut


def _sum_up(module: _Module, kinds: dict[object, int]) -> None:
    """Set the sums and the kinds, from the leaves up."""
    for child in module.children.values():
        _sum_up(child, kinds)
    parts = (*module.tensors.values(), *module.children.values())
    module.elements = sum(p.count if isinstance(p, TensorRow) else p.elements for p in parts)
    module.flops = sum(part.flops or 0 for part in parts)
    content = (
        tuple((name, row.shape, row.dtype) for name, row in module.tensors.items()),
        tuple((name, child.kind) for name, child in module.children.items()),
    )
    module.kind = kinds.setdefault(content, len(kinds))


def _bare_tensors(root: _Module) -> Iterator[tuple[str, ...]]:
    for name, row in root.tensors.items():
        yield name, format_shape(row.shape), f"{row.count:,}", format_count(row.flops or 0)


def _children(parent: _Module, parent_name: str, level: int) -> Iterator[tuple[str, ...]]:
    for names in _alike(parent.children):
        module = parent.children[names[0]]
        label, times = names[0], ""
        if len(names) > 1:
            singular = parent_name.removesuffix("s") or "layer"
            times = f"{len(names):,} × "
            label = f"{_ranges([int(name) for name in names])}: {times}{singular}"
        shapes = _shapes(module.tensors)
        sums = (f"{times}{module.elements:,}", f"{times}{format_count(module.flops)}")
        yield GUIDE * level + label, shapes, *sums
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


def _shapes(tensors: dict[str, TensorRow]) -> str:
    """512 × 128, bias 512: the weight's shape first, the others under their names."""
    ordered = sorted(tensors.items(), key=lambda item: item[0] != "weight")
    texts = [
        format_shape(row.shape) if name == "weight" else f"{name} {format_shape(row.shape)}"
        for name, row in ordered
    ]
    hidden = len(texts) - MAX_SHAPES
    return ", ".join([*texts[:MAX_SHAPES], *([f"{hidden:,} more"] if hidden > 0 else [])])
