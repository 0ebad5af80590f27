"""--diff: two checkpoints, tensor by tensor: what came, went, changed its shape, and how far it moved.

Both files are read in step, piece by piece, in float64 and bounded memory. The rank of an update
tells a LoRA merge (as low as the adapter's) from training of the whole matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from minilm.formats.header import Header, StoredTensor
from minilm.values.read import Codes, Floats, Reader, chunks, decode64
from minilm.values.statistics import Progress, Unread, finite, unreadable
from minilm.values.update_rank import Rank, Rounding, numerical_rank

Ties = Iterable[tuple[str, str]]

# Elements of a piece, in float64 and several copies; longer rows have no rank told.
CHUNK_ELEMENTS = 1 << 17

NO_MATRIX = Rank(None, False)

# Distance from 1 to the next number; a dtype that is not here rounds nothing (integers).
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
    """A tensor of the same name and another shape."""

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Renamed:
    """Another word for the same tensor: its dtype, or whose storage it shares (None: its own)."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Change:
    """How one tensor moved from A to B.

    ``identical`` is the share of equal elements: bit by bit where the dtype is the same, else by value.
    The other figures are over elements that are finite in both; ``not_finite`` are left out. ``norm``
    is |B - A|, ``relative`` that over |A|. ``rank`` is B - A's, of matrices, without what is rounding;
    where ``rank_exact`` is False, it is at least so much, and where it is None, ``rank_unknown`` says
    why (None: no matrix).
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

    ``total`` is of ``total.count`` of all ``values`` that both have under the same names and shapes.
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
        """Whether no tensor of the one has the name of any of the other."""
        common = (self.changes, self.reshaped, self.unread, self.retied)
        return bool(self.added and self.removed) and not any(common)

    @property
    def identical(self) -> bool:
        """Whether both hold the same tensors with the same bits."""
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
    """Compare two checkpoints, but for values ``left_out`` by name.

    Ties are pairs (name, name whose storage it shares).
    """
    before, after = ({t.name: t for t in header.tensors} for header in (a, b))
    tied_before, tied_after = dict((*a.shared, *ties_a)), dict((*b.shared, *ties_b))
    retied = _retied(before, after, tied_before, tied_after)
    tied_alike = {name for name in tied_before if tied_before[name] == tied_after.get(name)}
    known = {entry.name for entry in retied} | tied_alike
    common = [(before[name], after[name]) for name in before if name in after]
    reshaped = [(x, y) for x, y in common if x.shape != y.shape and x.name not in left_out]
    unread = {
        x.name: found
        for x, y in common
        if (found := left_out.get(x.name))
        or (x.shape == y.shape and (found := unreadable(x) or unreadable(y)))
    }
    readable = [(x, y) for x, y in common if x.shape == y.shape and x.name not in unread]
    meter = _Meter(progress, sum(x.nbytes + y.nbytes for x, y in readable))
    total = _Sums()
    changes = []
    for x, y in readable:
        sums = _compare(x, y, meter)
        rank = _rank(x, y, sums)
        changes.append(_change(x.name, x.shape, sums, rank))
        total.add(sums)
    return Difference(
        added=tuple(name for name in after if name not in before and name not in known),
        removed=tuple(name for name in before if name not in after and name not in known),
        reshaped=tuple(Reshaped(x.name, x.shape, y.shape) for x, y in reshaped),
        retyped=tuple(Renamed(x.name, x.dtype, y.dtype) for x, y in common if x.dtype != y.dtype),
        retied=retied,
        changes=tuple(changes),
        total=_change("total", (), total, NO_MATRIX),
        unread=tuple(unread.values()),
        values=total.count + sum(each.count for each in unread.values()),
    )


def _retied(
    before: Mapping[str, StoredTensor],
    after: Mapping[str, StoredTensor],
    tied_before: Mapping[str, str],
    tied_after: Mapping[str, str],
) -> tuple[Renamed, ...]:
    """Names that both have, tied in one and not in the other, or to another tensor."""
    return tuple(
        Renamed(name, tied_before.get(name), tied_after.get(name))
        for name in dict.fromkeys((*before, *after, *tied_before, *tied_after))
        if tied_before.get(name) != tied_after.get(name)
        and (name in before or name in tied_before)
        and (name in after or name in tied_after)
    )


@dataclass
class _Sums:
    """What is added up over the pieces of a pair, the pairs of a checkpoint."""

    count: int = 0
    equal: int = 0
    not_finite: int = 0
    before: float = 0.0  # sums of squares
    after: float = 0.0
    change: float = 0.0
    product: float = 0.0
    largest: float = -1.0
    place: int = 0
    # Of what rounding may have touched: the largest row, every column, all.
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


class _Meter:
    """Adds up the bytes that are done and reports them."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def advance(self, count: int, x: StoredTensor, y: StoredTensor) -> None:
        self.done += (x.nbytes + y.nbytes) * count // x.count
        if self.progress is not None:
            self.progress(self.done, self.total, x.name)


def _read_both(x: StoredTensor, y: StoredTensor) -> Iterator[tuple[int, Codes, Codes]]:
    """(first element, codes of A, codes of B), piece by piece."""
    size = min(CHUNK_ELEMENTS, x.count)
    with ExitStack() as stack:
        one, two = (stack.enter_context(Reader(tensor, size)) for tensor in (x, y))
        for start, count in chunks(x, CHUNK_ELEMENTS):
            yield start, one.codes(start, count), two.codes(start, count)


def _compare(x: StoredTensor, y: StoredTensor, meter: _Meter) -> _Sums:
    sums = _Sums(count=x.count)
    for start, codes_a, codes_b in _read_both(x, y):
        a, b = decode64(codes_a, x.dtype), decode64(codes_b, y.dtype)
        sums.equal += _equal(codes_a, codes_b, a, b, same_dtype=x.dtype == y.dtype)
        both = np.isfinite(a) & np.isfinite(b)
        not_finite = a.size - int(np.count_nonzero(both))
        if not_finite:
            sums.not_finite += not_finite
            a, b = np.where(both, a, 0), np.where(both, b, 0)
        with np.errstate(over="ignore"):
            _add_piece(sums, x.shape, start, a, b, both)
        meter.advance(a.size, x, y)
    return sums


def _add_piece(
    sums: _Sums,
    shape: tuple[int, ...],
    start: int,
    a: Floats,
    b: Floats,
    compared: npt.NDArray[np.bool_],
) -> None:
    change = b - a
    sums.before += float(a @ a)
    sums.after += float(b @ b)
    sums.product += float(a @ b)
    sums.change += float(change @ change)
    magnitude = np.where(compared, np.abs(change), -1)
    place = int(magnitude.argmax())
    if magnitude[place] > sums.largest:
        sums.largest, sums.place = float(magnitude[place]), start + place
    if len(shape) == 2 and shape[1] <= CHUNK_ELEMENTS:
        touched = np.where(change != 0, np.maximum(np.abs(a), np.abs(b)), 0)
        squares = np.square(touched).reshape(-1, shape[1])
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
    # What is stored more coarsely decides how much of the update is rounding.
    epsilon = max(EPSILON.get(x.dtype, 0.0), EPSILON.get(y.dtype, 0.0))
    column_squares = float(sums.column_squares.max())
    rounding = Rounding.of(epsilon, sums.row_squares, column_squares, sums.changed_squares)

    def rows() -> Iterator[Floats]:
        for _, codes_a, codes_b in _read_both(x, y):
            change = decode64(codes_b, y.dtype) - decode64(codes_a, x.dtype)
            yield change.reshape(-1, x.shape[1])

    return numerical_rank(rows, (x.shape[0], x.shape[1]), sums.change, rounding)


def _change(name: str, shape: tuple[int, ...], sums: _Sums, rank: Rank) -> Change:
    compared = sums.largest >= 0
    lengths = math.sqrt(sums.before) * math.sqrt(sums.after)
    norm = math.sqrt(sums.change)
    cosine = sums.product / lengths if 0 < lengths < math.inf else math.nan
    place = np.unravel_index(sums.place, shape) if compared and name != "total" else None
    return Change(
        name=name,
        shape=shape,
        count=sums.count,
        identical=sums.equal / sums.count if sums.count else 1.0,
        not_finite=sums.not_finite,
        norm=finite(norm),
        relative=finite(norm / math.sqrt(sums.before)) if sums.before else None,
        cosine=finite(max(-1.0, min(1.0, cosine))) if math.isfinite(cosine) else None,
        max_change=finite(sums.largest) if compared else None,
        max_index=None if place is None else tuple(int(i) for i in place),
        rank=rank.rank,
        rank_exact=rank.exact,
        rank_unknown=rank.reason,
    )
