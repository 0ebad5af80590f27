"""Sections of what the values of a checkpoint are like (--stats), and how two differ (--diff)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from minilm.render.cells import (
    bar_lengths,
    format_index,
    format_number,
    format_shape,
    number_columns,
)
from minilm.render.document import Block, Column, Listing, Paragraph, Section, Table
from minilm.safe_text import one_line
from minilm.values.difference import Change, Difference, Renamed
from minilm.values.scan import Outlier
from minilm.values.statistics import Histogram, Statistics, TensorStatistics, Unread

_HEIGHTS = "▁▂▃▄▅▆▇█"
_HISTOGRAM_WIDTH = 12


def statistics_section(statistics: Statistics) -> Section:
    """Every tensor's figures and their total, what is odd, the largest values, what was not read."""
    every = (*statistics.tensors, statistics.total)
    blocks: list[Block] = [
        Paragraph("Figures are over the finite values; magnitudes count |x| by powers of two."),
        *_coverage(statistics.total.count, statistics.values),
        _statistics_table(every),
        *_listing("not finite, zero or dead", filter(None, map(_odd_values, every))),
        *_outlier_table(statistics.total.outliers),
        *_histogram_table(statistics.total.histogram),
        *_unread_listing(statistics.unread),
    ]
    return Section("statistics", "Statistics", tuple(blocks), requested=True)


def difference_section(difference: Difference) -> Section:
    """What was added, removed and changed its form; then how far every tensor moved that did."""
    changes = [change for change in difference.changes if change.identical < 1]
    same = [change for change in difference.changes if change.identical == 1]
    unknown = Counter(change.rank_unknown for change in changes if change.rank_unknown)
    blocks: list[Block] = [
        Paragraph(_difference_sentence(difference, len(same))),
        *_coverage(difference.total.count, difference.values),
        *_listing("added", map(one_line, difference.added)),
        *_listing("removed", map(one_line, difference.removed)),
        *_before_after(
            "reshaped",
            [
                (one_line(each.name), format_shape(each.before), format_shape(each.after))
                for each in difference.reshaped
            ],
        ),
        *_before_after("another dtype", map(_renamed_cells, difference.retyped)),
        *_before_after("tied or untied", map(_renamed_cells, difference.retied)),
        *_change_table(changes, difference.total),
        *(Paragraph(f"{count:,} without a rank: {why}.") for why, count in unknown.items()),
        *_listing("not finite in either, and left out", map(_not_finite, difference.changes)),
        *_unread_listing(difference.unread),
        *_listing("identical", (one_line(change.name) for change in same), full_only=True),
    ]
    return Section("difference", "Difference", tuple(blocks), requested=True)


def _coverage(read: int, values: int) -> list[Paragraph]:
    """How much of a checkpoint a total is of; nothing where it is of everything."""
    if read == values:
        return []
    share = min(read / values, 0.9999)  # a part is never called the whole
    return [Paragraph(f"The total is of {read:,} of {values:,} values ({share:.2%}).")]


def _statistics_table(tensors: Sequence[TensorStatistics]) -> Table:
    columns = (
        Column("tensor", "code"),
        *(Column(title, "number") for title in ("mean", "std", "max |x|", "kurtosis")),
        *(Column("stable rank", "number"), Column("magnitudes")),
        *(Column(title, "number", full_only=True) for title in ("min", "max", "norm")),
        *(Column("shape", "number", full_only=True), Column("dtype", full_only=True)),
    )
    return Table(columns, tuple(map(_statistics_cells, tensors)), total_last=True)


def _statistics_cells(row: TensorStatistics) -> tuple[str, ...]:
    largest = None if row.max is None or row.min is None else max(abs(row.min), abs(row.max))
    figures = (row.mean, row.std, largest, row.kurtosis, row.stable_rank)
    return (
        one_line(row.name),
        *map(format_number, figures),
        _magnitudes(row.histogram),
        *map(format_number, (row.min, row.max, row.norm)),
        format_shape(row.shape) if row.shape else "",
        one_line(row.dtype),
    )


def _magnitudes(histogram: Histogram) -> str:
    """The highest powers of two that hold values, the smallest first; a blank holds none."""
    counts = histogram.counts[-_HISTOGRAM_WIDTH:]
    most = max(counts, default=0)
    return "".join(_HEIGHTS[(len(_HEIGHTS) - 1) * n // most] if n else " " for n in counts)


def _odd_values(row: TensorStatistics) -> str:
    dead = f" of {row.rows or 0:,} rows all zero"
    parts = [
        f"{count:,}{meaning}"
        for count, meaning in (
            (row.nan, " NaN"),
            (row.inf, " infinite"),
            (row.zeros, f" zeros ({row.zeros / max(row.count, 1):.2%})"),
            (row.dead_rows, dead),
        )
        if count
    ]
    return f"{one_line(row.name)}: {', '.join(parts)}" if parts else ""


def _outlier_table(outliers: Sequence[Outlier]) -> list[Table]:
    rows = tuple(
        (one_line(each.tensor), format_index(each.index), f"{each.value:.6g}") for each in outliers
    )
    columns = (Column("largest values", "code"), Column("at", "number"), Column("value", "number"))
    return [Table(columns, rows)] if rows else []


def _histogram_table(histogram: Histogram) -> list[Table]:
    first = histogram.lowest_exponent
    rows = tuple(
        (f"2^{e} to 2^{e + 1}", f"{count:,}") for e, count in enumerate(histogram.counts, first)
    )
    bars = bar_lengths(histogram.counts)
    table = Table(number_columns("magnitude", "values"), rows, bars=bars, full_only=True)
    return [table] if rows else []


def _difference_sentence(difference: Difference, identical: int) -> str:
    if difference.identical:
        return "Both hold the same tensors with the same bits."
    if difference.nothing_in_common:
        return "No tensor has the same name in both: they may be named differently."
    return (
        f"They differ; {identical:,} of {len(difference.changes):,} compared tensors are identical."
    )


def _change_table(changes: Sequence[Change], total: Change) -> list[Table]:
    if not changes:
        return []
    columns = (
        Column("change of", "code"),
        *(Column(title, "number") for title in ("|B - A|", "relative", "cosine", "same bits")),
        *(Column("largest", "number"), Column("rank", "number")),
        Column("at", "number", full_only=True),
        Column("no rank because", full_only=True),
    )
    rows = tuple(map(_change_cells, (*changes, total)))
    return [Table(columns, rows, total_last=True)]


def _change_cells(change: Change) -> tuple[str, ...]:
    rank = "" if change.rank is None else f"{'' if change.rank_exact else '>= '}{change.rank:,}"
    return (
        one_line(change.name),
        format_number(change.norm),
        format_number(change.relative),
        "" if change.cosine is None else f"{change.cosine:.6f}",
        f"{change.identical:.1%}",
        format_number(change.max_change),
        rank,
        format_index(change.max_index),
        change.rank_unknown or "",
    )


def _before_after(title: str, changes: Iterable[tuple[str, str, str]]) -> list[Table]:
    rows = tuple(changes)
    columns = (Column(title, "code"), Column("before (A)"), Column("after (B)"))
    return [Table(columns, rows)] if rows else []


def _renamed_cells(each: Renamed) -> tuple[str, str, str]:
    before, after = each.before or "its own", each.after or "its own"
    return one_line(each.name), one_line(before), one_line(after)


def _not_finite(change: Change) -> str:
    if not change.not_finite:
        return ""
    return f"{one_line(change.name)}: {change.not_finite:,} of {change.count:,} values"


def _unread_listing(tensors: Sequence[Unread]) -> list[Listing]:
    # Scales stand for no values of their own: last.
    listed = sorted(tensors, key=lambda tensor: tensor.count == 0)
    return _listing("not read", (f"{one_line(t.name)}: {one_line(t.reason)}" for t in listed))


def _listing(title: str, lines: Iterable[str], *, full_only: bool = False) -> list[Listing]:
    """A list whose title says how many there are; nothing for none."""
    listed = tuple(line for line in lines if line)
    return [Listing(f"{title} ({len(listed):,})", listed, full_only=full_only)] if listed else []
