"""Statistics and differences for the terminal: one line a tensor, as much as 80 columns hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from minilm.render.requested import coverage
from minilm.safe_text import one_line
from minilm.values.difference import Change, Difference
from minilm.values.scan import Outlier
from minilm.values.statistics import (
    Histogram,
    Statistics,
    TensorStatistics,
    Unread,
)

BLOCKS = "▁▂▃▄▅▆▇█"
HISTOGRAM_WIDTH = 12
LISTED = 20


def statistics_table(statistics: Statistics) -> RenderableType:
    """Every tensor's figures, then what is odd, the largest values, and what was not read."""
    table = _table("tensor", "mean", "std", "max |x|", "kurt", "s.rank", "|x| by 2^n")
    for row in statistics.tensors:
        table.add_row(*_statistics_cells(row))
    table.add_row(*_statistics_cells(statistics.total), style="bold")
    parts: list[RenderableType] = [table]
    parts += _coverage(statistics.total.count, statistics.values)
    odd = [line for row in statistics.tensors if (line := _odd(row))]
    parts += _listed("not finite, zero or dead", odd)
    parts += _listed("largest values", [_outlier(entry) for entry in statistics.total.outliers])
    parts += _unread(statistics.unread)
    return Group(*parts)


def difference_table(difference: Difference) -> RenderableType:
    """What came, went and changed its form; then how far every tensor moved that did."""
    parts: list[RenderableType] = []
    for title, names in (("added", difference.added), ("removed", difference.removed)):
        parts += _listed(title, [one_line(name) for name in names])
    shapes = [
        f"{one_line(entry.name)}: {_shape(entry.before)} -> {_shape(entry.after)}"
        for entry in difference.reshaped
    ]
    dtypes = [
        f"{one_line(entry.name)}: {one_line(str(entry.before))} -> {one_line(str(entry.after))}"
        for entry in difference.retyped
    ]
    ties = [
        f"{one_line(entry.name)}: {_tie(entry.before)} -> {_tie(entry.after)}"
        for entry in difference.retied
    ]
    parts += _listed("reshaped", shapes) + _listed("another dtype", dtypes)
    parts += _listed("tied or untied", ties)
    moved = [change for change in difference.changes if change.identical < 1]
    if moved:
        table = _table("tensor", "|B - A|", "relative", "cosine", "same bits", "max", "rank")
        for change in moved:
            table.add_row(*_change_cells(change))
        table.add_row(*_change_cells(difference.total), style="bold")
        parts += [table, ""]
    parts += _coverage(difference.total.count, difference.values)
    still = len(difference.changes) - len(moved)
    if difference.nothing_in_common:
        parts += ["", Text("no tensor has the same name in both: they may be named differently")]
    else:
        parts.append(Text(f"{still} of {len(difference.changes)} compared tensors are identical"))
    unknown = Counter(change.rank_unknown for change in moved if change.rank_unknown)
    parts += [Text(f"{count:,} without a rank: {reason}") for reason, count in unknown.items()]
    parts += _listed(
        "not finite in A or B, and left out",
        [
            f"{one_line(change.name)}: {change.not_finite:,} of {change.count:,} values not finite"
            for change in difference.changes
            if change.not_finite
        ],
    )
    parts += _unread(difference.unread)
    return Group(*parts)


def _statistics_cells(row: TensorStatistics) -> list[RenderableType]:
    largest = None if row.max is None or row.min is None else max(abs(row.min), abs(row.max))
    numbers = (row.mean, row.std, largest, row.kurtosis, row.stable_rank)
    return [Text(one_line(row.name)), *map(_number, numbers), _bars(row.histogram)]


def _bars(histogram: Histogram) -> str:
    """The highest powers of two that hold values, the smallest first; a blank holds none."""
    shown = histogram.counts[-HISTOGRAM_WIDTH:]
    most = max(shown, default=0)
    return "".join(BLOCKS[(len(BLOCKS) - 1) * n // most] if n else " " for n in shown)


def _odd(row: TensorStatistics) -> str:
    rows = f" of {row.rows or 0:,} rows all zero"
    found = [
        f"{count:,}{words}"
        for count, words in (
            (row.nan, " NaN"),
            (row.inf, " infinite"),
            (row.zeros, f" zeros ({row.zeros / max(row.count, 1):.2%})"),
            (row.dead_rows, rows),
        )
        if count
    ]
    return f"{one_line(row.name)}: {', '.join(found)}" if found else ""


def _outlier(entry: Outlier) -> str:
    place = ", ".join(map(str, entry.index))
    return f"{entry.value:.6g}  {one_line(entry.tensor)}[{place}]"


def _change_cells(change: Change) -> list[RenderableType]:
    cosine = "" if change.cosine is None else f"{change.cosine:.6f}"
    rank = "" if change.rank is None else f"{'' if change.rank_exact else '>='}{change.rank}"
    return [
        Text(one_line(change.name)),
        _number(change.norm),
        _number(change.relative),
        cosine,
        f"{change.identical:.1%}",
        _number(change.max_change),
        rank,
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _tie(shared: str | None) -> str:
    return "its own" if shared is None else f"is {one_line(shared)}"


def _coverage(read: int, values: int) -> list[RenderableType]:
    return [Text(text) for text in coverage(read, values)]


def _unread(tensors: Sequence[Unread]) -> list[RenderableType]:
    # Scales stand for no values of their own: last.
    listed = sorted(tensors, key=lambda tensor: tensor.count == 0)
    return _listed("not read", [f"{one_line(t.name)}: {one_line(t.reason)}" for t in listed])


def _listed(title: str, lines: Sequence[str]) -> list[RenderableType]:
    """A heading with a count, the first lines, and how many are left out; nothing for none."""
    if not lines:
        return []
    shown = [Text(f"  {line}") for line in lines[:LISTED]]
    more = [Text(f"  and {len(lines) - LISTED:,} more", "dim")] if len(lines) > LISTED else []
    return ["", Text(f"{title} ({len(lines):,})", "bold"), *shown, *more]


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column(first, overflow="fold")
    for header in others:
        left = header == others[-1] and header != "rank"
        table.add_column(header, justify="left" if left else "right", no_wrap=True)
    return table
