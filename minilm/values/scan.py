"""One part of a tensor, read once and added up: counts, moments, exponents, live rows, outliers.

Floats of 8 and 16 bits are counted code by code: the 65,536 counts give every figure that does not
depend on order, exactly. Other dtypes go through float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from minilm.formats.header import StoredTensor
from minilm.values.moments import Moments, moments_of, moments_of_counts
from minilm.values.read import (
    ITEMS,
    PIECE,
    Codes,
    Floats,
    Reader,
    decode64,
    pieces,
    rows_and_columns,
)

PART_BYTES = 1 << 26  # what is read before it is reported
WIDE_PIECE = 1 << 16  # elements of a piece where every one takes 8 bytes
OUTLIERS = 5

# Code of infinity: higher codes are NaN, lower ones are ordered as the magnitudes they stand for.
INFINITY = {"bfloat16": 0x7F80, "float16": 0x7C00, "float8_e5m2": 0x7C, "float8_e4m3fn": 0x7F}
# Below this size, a table of 65,536 counts costs more than it saves.
COUNTED_FROM = 1 << 16

EXPONENTS = 2048  # of float64; exponent e is bin e + EXPONENT_BIAS
EXPONENT_BIAS = 1023


@dataclass(frozen=True)
class Outlier:
    """One of the values largest in magnitude, and where it is."""

    tensor: str
    index: tuple[int, ...]
    value: float


@dataclass(frozen=True)
class Part:
    """Pieces ``first`` to ``last`` - 1 of a tensor: what a process reads at a time."""

    tensor: StoredTensor
    first: int
    last: int
    nbytes: int
    bytes_read: int  # of the tensor, up to the end of this part

    @property
    def is_end(self) -> bool:
        return self.bytes_read == self.tensor.nbytes

    @property
    def is_counted(self) -> bool:
        return self.tensor.dtype in INFINITY and self.tensor.count >= COUNTED_FROM


def parts(tensor: StoredTensor) -> Iterator[Part]:
    piece = PIECE if tensor.dtype in INFINITY and tensor.count >= COUNTED_FROM else WIDE_PIECE
    number = max(1, sum(1 for _ in pieces(tensor, piece)))
    step = max(1, PART_BYTES // (piece * ITEMS[tensor.dtype].itemsize))
    begun = 0
    for first in range(0, number, step):
        last = min(first + step, number)
        done = tensor.nbytes * last // number
        yield Part(tensor, first, last, done - begun, done)
        begun = done


def scanned(part: Part) -> Tally:
    if not part.tensor.count:
        return Tally()
    return (_scan_counted if part.is_counted else _scan)(part)


def finish_rows(tally: Tally, tensor: StoredTensor) -> None:
    tally.count = tensor.count
    if len(tensor.shape) < 2:
        tally.live_rows = 0
    else:
        tally.rows, columns = rows_and_columns(tensor)
        if columns == 0:
            tally.rows = 0
        tally.live_rows += len(tally.live_long_rows)
    tally.live_long_rows = set()


@dataclass
class Tally:
    """Everything that is added up over the pieces of a tensor, the tensors of a model."""

    count: int = 0
    nan: int = 0
    inf: int = 0
    zeros: int = 0
    negative: int = 0
    rows: int = 0
    live_rows: int = 0
    live_long_rows: set[int] = field(default_factory=set)
    minimum: float = math.inf
    maximum: float = -math.inf
    moments: Moments = field(default_factory=Moments)
    exponents: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(EXPONENTS, np.int64))
    largest: list[Outlier] = field(default_factory=list)
    magnitudes: list[float] = field(default_factory=list)  # of the largest, as they are compared

    @property
    def limit(self) -> float:
        """What a magnitude must exceed to be among the largest."""
        return self.magnitudes[-1] if len(self.magnitudes) == OUTLIERS else 0

    def add(self, other: Tally) -> None:
        self.count += other.count
        self.nan += other.nan
        self.inf += other.inf
        self.zeros += other.zeros
        self.negative += other.negative
        self.rows += other.rows
        self.live_rows += other.live_rows
        self.live_long_rows |= other.live_long_rows
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.moments = self.moments.merge(other.moments)
        self.exponents += other.exponents
        self.largest = _first(self.largest + other.largest)


def _scan_counted(part: Part) -> Tally:
    """A part of a float tensor of 8 or 16 bits, by counting its codes."""
    tally, tensor = Tally(), part.tensor
    item = ITEMS[tensor.dtype]
    bits = item.itemsize * 8
    sign, infinity = 1 << (bits - 1), INFINITY[tensor.dtype]
    size = min(PIECE, tensor.count)
    magnitudes, wide = np.empty(size, item), np.empty(size, np.intp)
    counts = np.zeros(1 << bits, np.int64)
    with Reader(tensor, size) as reader:
        for start, count in islice(pieces(tensor), part.first, part.last):
            codes = reader.codes(start, count)
            np.copyto(wide[:count], codes)  # bincount would do it, into new memory every time
            counts += np.bincount(wide[:count], minlength=1 << bits)
            magnitude = np.bitwise_and(codes, sign - 1, out=magnitudes[:count])
            _look_at_rows(tally, tensor, start, magnitude, codes, infinity)
    _finish_counts(tally, counts, tensor.dtype)
    return tally


def _finish_counts(tally: Tally, counts: npt.NDArray[np.int64], dtype: str) -> None:
    codes = np.arange(len(counts), dtype=ITEMS[dtype])
    values = decode64(codes, dtype)
    tally.nan = int(counts[np.isnan(values)].sum())
    tally.inf = int(counts[np.isinf(values)].sum())
    tally.zeros = int(counts[values == 0].sum())
    finite = np.isfinite(values) & (counts > 0)
    values, counts = values[finite], counts[finite]
    if not values.size:
        return
    tally.negative = int(counts[values < 0].sum())
    tally.minimum, tally.maximum = float(values.min()), float(values.max())
    tally.moments = moments_of_counts(values, counts)
    values, counts = values[values != 0], counts[values != 0]
    np.add.at(tally.exponents, np.frexp(values)[1] - 1 + EXPONENT_BIAS, counts)


def _scan(part: Part) -> Tally:
    """A part of any tensor, through float64."""
    tally, tensor = Tally(), part.tensor
    size = min(WIDE_PIECE, tensor.count)
    memory = np.empty((3, size))  # new memory for every piece would take longer than the arithmetic
    with Reader(tensor, size) as reader:
        for start, count in islice(pieces(tensor, WIDE_PIECE), part.first, part.last):
            values = decode64(reader.codes(start, count), tensor.dtype, memory[0])
            _add_values(tally, tensor, start, values, memory[1][:count], memory[2][:count])
    return tally


def _add_values(
    tally: Tally, tensor: StoredTensor, start: int, values: Floats, first: Floats, second: Floats
) -> None:
    """One piece; ``first`` and ``second`` are memory to work in."""
    exponents = np.right_shift(values.view(np.int64), 52, out=first.view(np.int64))
    np.bitwise_and(exponents, EXPONENTS - 1, out=exponents)
    bins = np.bincount(exponents, minlength=EXPONENTS)
    zeros = values.size - int(np.count_nonzero(values))
    bins[0] -= zeros
    not_finite, bins[-1] = int(bins[-1]), 0
    tally.exponents += bins
    tally.zeros += zeros
    _look_at_rows(tally, tensor, start, np.abs(values, out=first), values, math.inf)
    if not_finite:
        nan = int(np.count_nonzero(np.isnan(values)))
        tally.nan += nan
        tally.inf += not_finite - nan
        values = values[np.isfinite(values)]
    if values.size:
        tally.negative += int(np.count_nonzero(values < 0))
        tally.minimum = min(tally.minimum, float(values.min()))
        tally.maximum = max(tally.maximum, float(values.max()))
        piece = moments_of(values, first[: values.size], second[: values.size])
        tally.moments = tally.moments.merge(piece)


def _look_at_rows(
    tally: Tally,
    tensor: StoredTensor,
    start: int,
    magnitude: Codes,
    codes: Codes,
    infinity: float,
) -> None:
    """Count live rows and keep the largest values. Magnitudes may be codes: only their order counts."""
    columns = rows_and_columns(tensor)[1]
    if columns > magnitude.size:  # a part of one long row
        row_maxima = magnitude.max(keepdims=True)
        if row_maxima[0] != 0:
            tally.live_long_rows.add(start // columns)
        columns = magnitude.size
    else:
        row_maxima = _row_maxima(magnitude.reshape(-1, columns))
        tally.live_rows += int(np.count_nonzero(row_maxima))
    if not row_maxima.max() < infinity:  # NaN is the largest code, and not less than infinity
        magnitude = np.where(magnitude < infinity, magnitude, magnitude.dtype.type(0))
        row_maxima = _row_maxima(magnitude.reshape(-1, columns))
    # Pieces of one thread come in order, so an equal value that comes later never counts.
    rows = np.flatnonzero(row_maxima > tally.limit)
    if not rows.size:
        return
    # The rows with the largest maxima hold the largest values.
    rows = np.sort(rows[_places_of_largest(row_maxima[rows])])
    places = (rows[:, None] * columns + np.arange(columns)).reshape(-1)
    places = places[magnitude[places] > tally.limit]
    places = places[_places_of_largest(magnitude[places])]
    values = decode64(codes[places], tensor.dtype) if codes.dtype != np.float64 else codes[places]
    found = [
        Outlier(tensor.name, tuple(int(i) for i in np.unravel_index(place, tensor.shape)), value)
        for place, value in zip((start + places).tolist(), values.tolist(), strict=True)
    ]
    magnitudes = [*tally.magnitudes, *magnitude[places].tolist()]
    tally.magnitudes = sorted(magnitudes, reverse=True)[:OUTLIERS]
    tally.largest = _first(tally.largest + found)


def _places_of_largest(values: Codes) -> npt.NDArray[np.intp]:
    """Where the largest values are, falling; of equal ones the earlier."""
    kept = np.arange(values.size)
    if values.size > OUTLIERS:
        kept = np.flatnonzero(values >= np.partition(values, -OUTLIERS)[-OUTLIERS])
    return kept[np.argsort(-values[kept].astype(np.float64), kind="stable")[:OUTLIERS]]


def _row_maxima(matrix: Codes) -> Codes:
    maxima: Codes
    if matrix.shape[1] > 16:
        maxima = matrix.max(axis=1)
        return maxima
    # numpy reduces short rows slowly, one by one; go along the columns.
    maxima = matrix[:, 0].copy()
    for column in range(1, matrix.shape[1]):
        np.maximum(maxima, matrix[:, column], out=maxima)
    return maxima


def _first(outliers: list[Outlier]) -> list[Outlier]:
    """The largest, the earlier one where two are equal."""
    return sorted(outliers, key=lambda outlier: (-abs(outlier.value), outlier.index))[:OUTLIERS]
