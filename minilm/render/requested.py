"""Sections of what a report has on request: --fits, --reconcile, --stats, --diff."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from minilm.costs.fits import SEARCHED
from minilm.render.tables import (
    Column,
    Section,
    Table,
    columns,
    number,
    relative,
    shape_text,
    size,
    way,
)
from minilm.safe_text import one_line

if TYPE_CHECKING:
    from minilm.costs.fits import Fit
    from minilm.inspection.reconciliation.explanation import Reconciliation
    from minilm.values.difference import Change, Difference, Renamed
    from minilm.values.scan import Outlier
    from minilm.values.statistics import Statistics, TensorStatistics, Unread


def fits(found: Sequence[Fit] | None) -> Section | None:
    """What fits in a given memory."""
    if found is None:
        return None
    if not found:
        return Section("fits", "What fits", ("No use of this model has a known cost.",))
    first = found[0]
    rows = tuple(
        (
            _use(fit),
            "yes" if fit.fits else "no",
            *(size(part or None) for part in (fit.required, fit.weights, fit.states)),
            *(size(part or None) for part in (fit.kv_cache, fit.activations, fit.overhead)),
            *(_limit(most) for most in (fit.max_context, fit.max_batch)),
        )
        for fit in found
    )
    needs = ("fits", "needs", "weights", "states", "KV cache", "activations", "overhead")
    titles = columns("use", *needs, "longest context", "largest batch")
    text = (
        f"{size(first.budget)} of memory, {first.batch:,} × {first.context:,} tokens. The longest "
        "context is for this batch, the largest batch for this context."
    )
    return Section("fits", "What fits", (text,), tables=(Table(titles, rows),))


def reconciliation(answer: Reconciliation | None) -> Section | None:
    """How a number from elsewhere comes about."""
    if answer is None:
        return None
    written = one_line(answer.number.text)
    if not answer.explained:
        text, found = f"{written} is not explained. The nearest:", answer.nearest
    elif answer.exact:
        text, found = f"{written} is explained to the last one:", answer.explanations
    else:
        text, found = f"{written} is explained within its rounding:", answer.explanations
    rows = tuple((one_line(each.text), f"{each.difference:+,}") for each in found)
    table = Table((Column("arithmetic", "code"), Column("left over", "number")), rows)
    chance = f"Chance alone would explain {answer.chance:.1%} of such numbers."
    return Section(
        "reconciliation",
        "Reconciliation",
        (text,) if answer.exact or not answer.explained else (text, chance),
        tables=(table,) if rows else (),
    )


def statistics(found: Statistics | None) -> Section | None:
    """What the values are like."""
    if found is None:
        return None
    tables = [_statistics([found.total, *found.tensors]), _outliers(found.total.outliers)]
    histogram = found.total.histogram
    if histogram.counts:
        exponents = range(histogram.lowest_exponent, histogram.lowest_exponent + 2**12)
        rows = tuple(
            (f"2^{e} to 2^{e + 1}", f"{count:,}")
            for e, count in zip(exponents, histogram.counts, strict=False)
        )
        tables.append(Table(columns("magnitude", "values"), rows, bars=relative(histogram.counts)))
    tables += _unread(found.unread)
    text = "Figures are over the finite values; the first row is of all tensors together."
    part = coverage(found.total.count, found.values)
    return Section("statistics", "Statistics", (text, *part), tables=tuple(tables))


def difference(found: Difference | None) -> Section | None:
    """What another target has that this one has not, and how the common values differ."""
    if found is None:
        return None
    tables = [
        *_names("added", found.added),
        *_names("removed", found.removed),
        *_before_after(
            "reshaped",
            (
                (each.name, shape_text(each.before), shape_text(each.after))
                for each in found.reshaped
            ),
        ),
        *_before_after("another dtype", map(_renamed, found.retyped)),
        *_before_after("tied otherwise", map(_renamed, found.retied)),
    ]
    if found.changes:
        tables.append(_changes([found.total, *found.changes]))
    tables += _unread(found.unread)
    text = "Both hold the same tensors with the same bits." if found.identical else "They differ."
    if found.nothing_in_common:
        text = "No tensor has the same name in both: they may be named differently."
    part = coverage(found.total.count, found.values)
    return Section("difference", "Difference", (text, *part), tables=tuple(tables))


def coverage(read: int, values: int) -> tuple[str, ...]:
    """How much of a checkpoint a total is of; nothing where it is of everything."""
    if read == values:
        return ()
    share = min(read / values, 0.9999)  # a part is never called the whole
    return (f"The total is of {read:,} of {values:,} values ({share:.2%}).",)


def _limit(most: int) -> str:
    """The search for the most ended at ``SEARCHED``: there may be room for more."""
    if most == 0:
        return "none"
    return f"at least {most:,}" if most >= SEARCHED else f"{most:,}"


def _use(fit: Fit) -> str:
    use = way(fit.precision) if "_" in fit.precision else f"{fit.use}, {fit.precision}"
    return f"{use}, with checkpointing" if fit.checkpointing else use


_FIGURES = {
    "mean": "mean",
    "std": "std",
    "min": "min",
    "max": "max",
    "norm": "norm",
    "kurtosis": "kurtosis",
    "zeros": "zeros",
    "NaN": "nan",
    "Inf": "inf",
    "dead rows": "dead_rows",
    "stable rank": "stable_rank",
}


def _statistics(tensors: Iterable[TensorStatistics]) -> Table:
    rows = tuple(
        (
            one_line(t.name),
            one_line(t.dtype),
            shape_text(t.shape) if t.shape else "",
            *(number(getattr(t, field)) for field in _FIGURES.values()),
        )
        for t in tensors
    )
    named = (Column("tensor", "code"), Column("dtype"), Column("shape", "number"))
    return Table((*named, *(Column(title, "number") for title in _FIGURES)), rows)


def _outliers(outliers: Iterable[Outlier]) -> Table:
    rows = tuple(
        (one_line(each.tensor), ", ".join(map(str, each.index)), number(each.value))
        for each in outliers
    )
    titles = (Column("tensor", "code"), Column("at", "number"), Column("value", "number"))
    return Table(titles, rows, caption="the largest values")


def _changes(changes: Iterable[Change]) -> Table:
    rows = tuple(
        (
            one_line(c.name),
            f"{c.identical:.2%}",
            *map(number, (c.norm, c.relative, c.cosine, c.max_change)),
            ", ".join(map(str, c.max_index)) if c.max_index is not None else "",
            _rank(c),
            number(c.not_finite),
        )
        for c in changes
    )
    titles = ("identical", "norm", "relative", "cosine", "largest", "at", "rank", "not finite")
    numbers = (Column(title, "number") for title in titles)
    return Table((Column("change of", "code"), *numbers), rows)


def _rank(change: Change) -> str:
    if change.rank is None:
        return change.rank_unknown or ""
    return f"{'' if change.rank_exact else 'at least '}{change.rank:,}"


def _names(title: str, names: Sequence[str]) -> list[Table]:
    rows = tuple((one_line(name),) for name in names)
    return [Table((Column(title, "code"),), rows)] if rows else []


def _before_after(title: str, found: Iterable[tuple[str, str, str]]) -> list[Table]:
    rows = tuple(found)
    return [Table((Column(title, "code"), Column("in A"), Column("in B")), rows)] if rows else []


def _renamed(each: Renamed) -> tuple[str, str, str]:
    return (
        one_line(each.name),
        one_line(each.before or "its own"),
        one_line(each.after or "its own"),
    )


def _unread(unread: Sequence[Unread]) -> list[Table]:
    rows = tuple((one_line(each.name), one_line(each.reason)) for each in unread)
    return [Table((Column("not read", "code"), Column("why")), rows)] if rows else []
