"""--diff: two checkpoints compared: added, removed and reshaped tensors, and the changes of the others.

Both files are read in parallel, in chunks, in float64 and bounded memory. The rank of an update
distinguishes a merged LoRA adapter, whose rank is low, from full fine-tuning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from minilm.formats.header import Header, StoredTensor
from minilm.formats.number_codes import Codes
from minilm.values.read import Floats, Reader, chunks, decode64
from minilm.values.statistics import Progress, Unread, finite, unreadable
from minilm.values.update_rank import Rank, Rounding, numerical_rank

Ties = Iterable[tuple[str, str]]

# A chunk is in memory in float64 and several copies. The rank needs whole rows within a chunk.
CHUNK_ELEMENTS = 1 << 17

NO_MATRIX = Rank(None, False)

# The distance from 1 to the next number; integers, which are not listed, have no rounding.
EPSILON = {
    "float64": 2.0**-52,
    "float32": 2.0**-23,
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
    "float8_e4m3fn": 2.0**-3,
    "float8_e5m2": 2.0**-2,
    "float8_e4m3fnuz": 2.0**-3,
    "float8_e5m2fnuz": 2.0**-2,
}


@dataclass(frozen=True)
class Reshaped:
    """A tensor with the same name and another shape."""

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Renamed:
    """A changed attribute of a tensor: its dtype, or the tensor it shares storage with, if any."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Change:
    """How one tensor differs between A and B.

    ``identical`` is the share of equal elements: bitwise for equal dtypes, else by value. The other
    figures are over the elements that are finite in both; ``not_finite`` counts those that are not.
    ``norm`` is |B - A|, ``relative`` is |B - A| / |A|. ``rank`` is the numerical rank of B - A, a lower
    bound unless ``rank_exact``; if it is None, ``rank_unknown`` is the reason (None for no matrix).
    """

    name: str
    shape: tuple[int, ...]
    count: int
    identical: float
    not_finite: int
    norm: float | None
    relative: float | None
    cosine: float | None
    max_change: float | None
    max_index: tuple[int, ...] | None
    rank: int | None
    rank_exact: bool
    rank_unknown: str | None


@dataclass(frozen=True)
class Difference:
    """Everything that differs between A (before) and B (after).

    ``total`` is of ``total.count`` of the ``values`` in tensors with equal names and shapes.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    reshaped: tuple[Reshaped, ...]
    retyped: tuple[Renamed, ...]
    retied: tuple[Renamed, ...]
    changes: tuple[Change, ...]
    total: Change
    unread: tuple[Unread, ...]
    values: int

    @property
    def nothing_in_common(self) -> bool:
        """Whether A and B have no name in common."""
        common = (self.changes, self.reshaped, self.unread, self.retied)
        return bool(self.added and self.removed) and not any(common)

    @property
    def identical(self) -> bool:
        """Whether both have the same tensors with the same bits."""
        lists = (self.added, self.removed, self.reshaped, self.retyped, self.retied, self.unread)
        return not any(lists) and all(change.identical == 1 for change in self.changes)


def difference(
    a: Header,
    b: Header,
    *,
    ties_a: Ties = (),
    ties_b: Ties = (),
    left_out: Mapping[str, Unread] = MappingProxyType({}),
    progress: Progress | None = None,
) -> Difference:
    """Compare two checkpoints, except the values of the tensors in ``left_out``.

    Ties are pairs (name, name of the tensor that it shares storage with).
    """
    before, after = ({t.name: t for t in header.tensors} for header in (a, b))
    ties_before, ties_after = dict((*a.shared, *ties_a)), dict((*b.shared, *ties_b))
    retied = _retied(before, after, ties_before, ties_after)
    same_ties = {name for name in ties_before if ties_before[name] == ties_after.get(name)}
    tied_names = {entry.name for entry in retied} | same_ties
    common = [(before[name], after[name]) for name in before if name in after]
    reshaped = [(x, y) for x, y in common if x.shape != y.shape and x.name not in left_out]
    unread: dict[str, Unread] = {}
    for x, y in common:
        entry = left_out.get(x.name)
        if entry is None and x.shape == y.shape:
            entry = unreadable(x) or unreadable(y)
        if entry is not None:
            unread[x.name] = entry
    readable = [(x, y) for x, y in common if x.shape == y.shape and x.name not in unread]
    meter = _ProgressMeter(progress, sum(x.nbytes + y.nbytes for x, y in readable))
    total = _Sums()
    changes = []
    for x, y in readable:
        sums = _compare(x, y, meter)
        rank = _rank(x, y, sums)
        changes.append(_change(x.name, x.shape, sums, rank))
        total.add(sums)
    return Difference(
        added=tuple(name for name in after if name not in before and name not in tied_names),
        removed=tuple(name for name in before if name not in after and name not in tied_names),
        reshaped=tuple(Reshaped(x.name, x.shape, y.shape) for x, y in reshaped),
        retyped=tuple(Renamed(x.name, x.dtype, y.dtype) for x, y in common if x.dtype != y.dtype),
        retied=retied,
        changes=tuple(changes),
        total=_change("total", (), total, NO_MATRIX),
        unread=tuple(unread.values()),
        values=total.count + sum(entry.count for entry in unread.values()),
    )


def _retied(
    before: Mapping[str, StoredTensor],
    after: Mapping[str, StoredTensor],
    ties_before: Mapping[str, str],
    ties_after: Mapping[str, str],
) -> tuple[Renamed, ...]:
    """Names in both that are tied in only one, or to different tensors."""
    return tuple(
        Renamed(name, ties_before.get(name), ties_after.get(name))
        for name in dict.fromkeys((*before, *after, *ties_before, *ties_after))
        if ties_before.get(name) != ties_after.get(name)
        and (name in before or name in ties_before)
        and (name in after or name in ties_after)
    )


@dataclass
class _Sums:
    """Sums over the chunks of a pair of tensors, and over the pairs.

    ``before``, ``after`` and ``change`` are sums of squares; ``row_squares`` (the largest row's),
    ``column_squares`` and ``changed_squares`` (all) are those of the changed elements only, which may
    have rounding errors.
    """

    count: int = 0
    equal: int = 0
    not_finite: int = 0
    before: float = 0.0
    after: float = 0.0
    change: float = 0.0
    product: float = 0.0
    largest: float = -1.0
    index: int = 0
    row_squares: float = 0.0
    column_squares: Floats | None = None
    changed_squares: float = 0.0

    def add(self, other: _Sums) -> None:
        self.count += other.count
        self.equal += other.equal
        self.not_finite += other.not_finite
        self.before += other.before
        self.after += other.after
        self.change += other.change
        self.product += other.product
        self.largest = max(self.largest, other.largest)


class _ProgressMeter:
    """Reports the number of bytes read so far."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def advance(self, count: int, x: StoredTensor, y: StoredTensor) -> None:
        self.done += (x.nbytes + y.nbytes) * count // x.count
        if self.progress is not None:
            self.progress(self.done, self.total, x.name)


def _read_both(x: StoredTensor, y: StoredTensor) -> Iterator[tuple[int, Codes, Codes]]:
    """(first element, codes of A, codes of B) of each chunk."""
    size = min(CHUNK_ELEMENTS, x.count)
    with Reader(x, size) as reader_x, Reader(y, size) as reader_y:
        for start, count in chunks(x, CHUNK_ELEMENTS):
            yield start, reader_x.codes(start, count), reader_y.codes(start, count)


def _compare(x: StoredTensor, y: StoredTensor, meter: _ProgressMeter) -> _Sums:
    sums = _Sums(count=x.count)
    for start, codes_a, codes_b in _read_both(x, y):
        a, b = decode64(codes_a, x.dtype), decode64(codes_b, y.dtype)
        sums.equal += _equal(codes_a, codes_b, a, b, same_dtype=x.dtype == y.dtype)
        is_finite = np.isfinite(a) & np.isfinite(b)
        not_finite = a.size - int(np.count_nonzero(is_finite))
        if not_finite:
            sums.not_finite += not_finite
            a, b = np.where(is_finite, a, 0), np.where(is_finite, b, 0)
        with np.errstate(over="ignore"):
            _add_chunk(sums, x.shape, start, a, b, is_finite)
        meter.advance(a.size, x, y)
    return sums


def _add_chunk(
    sums: _Sums,
    shape: tuple[int, ...],
    start: int,
    a: Floats,
    b: Floats,
    is_finite: npt.NDArray[np.bool_],
) -> None:
    change = b - a
    sums.before += float(a @ a)
    sums.after += float(b @ b)
    sums.product += float(a @ b)
    sums.change += float(change @ change)
    magnitude = np.where(is_finite, np.abs(change), -1)
    index = int(magnitude.argmax())
    if magnitude[index] > sums.largest:
        sums.largest, sums.index = float(magnitude[index]), start + index
    if len(shape) == 2 and shape[1] <= CHUNK_ELEMENTS:
        changed = np.where(change != 0, np.maximum(np.abs(a), np.abs(b)), 0)
        squares = np.square(changed).reshape(-1, shape[1])
        rows, columns = squares.sum(axis=1), squares.sum(axis=0)
        sums.row_squares = max(sums.row_squares, float(rows.max()))
        sums.changed_squares += float(rows.sum())
        before = sums.column_squares
        sums.column_squares = columns if before is None else before + columns


def _equal(codes_a: Codes, codes_b: Codes, a: Floats, b: Floats, *, same_dtype: bool) -> int:
    if same_dtype and not codes_a.dtype.names:
        unsigned = np.dtype(f"u{codes_a.dtype.itemsize}")  # NaN equals NaN, -0 is not 0
        return int(np.count_nonzero(codes_a.view(unsigned) == codes_b.view(unsigned)))
    return int(np.count_nonzero(a == b))


def _rank(x: StoredTensor, y: StoredTensor, sums: _Sums) -> Rank:
    if len(x.shape) != 2 or not x.count:
        return NO_MATRIX
    if sums.not_finite:
        return Rank(None, False, "not finite")
    if x.shape[1] > CHUNK_ELEMENTS:
        return Rank(None, False, f"rows longer than {CHUNK_ELEMENTS:,}")
    if sums.largest == 0:
        return Rank(0, True)
    if not 0 < sums.change < math.inf:
        return Rank(None, False, "out of range")
    assert sums.column_squares is not None
    # The coarser of the dtypes determines the rounding errors.
    epsilon = max(EPSILON.get(x.dtype, 0.0), EPSILON.get(y.dtype, 0.0))
    column_squares = float(sums.column_squares.max())
    rounding = Rounding.of(epsilon, sums.row_squares, column_squares, sums.changed_squares)

    def rows() -> Iterator[Floats]:
        for _, codes_a, codes_b in _read_both(x, y):
            change = decode64(codes_b, y.dtype) - decode64(codes_a, x.dtype)
            yield change.reshape(-1, x.shape[1])

    return numerical_rank(rows, (x.shape[0], x.shape[1]), sums.change, rounding)


def _change(name: str, shape: tuple[int, ...], sums: _Sums, rank: Rank) -> Change:
    has_finite = sums.largest >= 0
    lengths = math.sqrt(sums.before) * math.sqrt(sums.after)
    norm = math.sqrt(sums.change)
    cosine = sums.product / lengths if 0 < lengths < math.inf else math.nan
    index = np.unravel_index(sums.index, shape) if has_finite and name != "total" else None
    return Change(
        name=name,
        shape=shape,
        count=sums.count,
        identical=sums.equal / sums.count if sums.count else 1.0,
        not_finite=sums.not_finite,
        norm=finite(norm),
        relative=finite(norm / math.sqrt(sums.before)) if sums.before else None,
        cosine=finite(max(-1.0, min(1.0, cosine))) if math.isfinite(cosine) else None,
        max_change=finite(sums.largest) if has_finite else None,
        max_index=None if index is None else tuple(int(i) for i in index),
        rank=rank.rank,
        rank_exact=rank.exact,
        rank_unknown=rank.reason,
    )
