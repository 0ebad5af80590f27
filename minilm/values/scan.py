"""One pass over a chunk of a tensor: counts, moments, exponents, live rows, outliers.

Floats of 8 and 16 bits are tallied code by code: the at most 65,536 counts give every statistic that
does not depend on order, exactly. Other dtypes are converted to float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from minilm.formats.header import StoredTensor
from minilm.formats.number_codes import Codes
from minilm.values.moments import Moments, moments_of, moments_of_counts
from minilm.values.read import (
    CHUNK_ELEMENTS,
    ITEM_DTYPES,
    Floats,
    Reader,
    chunks,
    decode64,
    item_dtype,
    matrix_shape,
)

TASK_BYTES = 1 << 26  # progress is reported after each task
WIDE_CHUNK_ELEMENTS = 1 << 16  # for dtypes converted to float64
OUTLIERS = 5

# The code of infinity: higher codes are NaN, lower ones are in the order of their magnitudes.
INFINITY = {"bfloat16": 0x7F80, "float16": 0x7C00, "float8_e5m2": 0x7C, "float8_e4m3fn": 0x7F}
# For fewer elements a table of counts costs more than it saves.
MIN_COUNTED = 1 << 16

EXPONENTS = 2048  # of float64; exponent e is bin e + EXPONENT_BIAS
EXPONENT_BIAS = 1023


@dataclass(frozen=True)
class Outlier:
    """One of the values of largest magnitude."""

    tensor: str
    index: tuple[int, ...]
    value: float


@dataclass(frozen=True)
class ScanTask:
    """Chunks ``first`` to ``last`` - 1 of a tensor, scanned by one process at a time."""

    tensor: StoredTensor
    first: int
    last: int
    nbytes: int
    bytes_read: int  # of the tensor, up to the end of this task

    @property
    def is_last(self) -> bool:
        """Whether it ends the tensor."""
        return self.bytes_read == self.tensor.nbytes


def scan_tasks(tensor: StoredTensor) -> Iterator[ScanTask]:
    """The tasks of a tensor, in order; at least one."""
    size = CHUNK_ELEMENTS if _is_counted(tensor) else WIDE_CHUNK_ELEMENTS
    num_chunks = max(1, sum(1 for _ in chunks(tensor, size)))
    step = max(1, TASK_BYTES // (size * item_dtype(tensor).itemsize))
    begin = 0
    for first in range(0, num_chunks, step):
        last = min(first + step, num_chunks)
        end = tensor.nbytes * last // num_chunks
        yield ScanTask(tensor, first, last, end - begin, end)
        begin = end


def scan(task: ScanTask) -> Tally:
    """Read the task's chunks and add up their values."""
    if not task.tensor.count:
        return Tally()
    return (_scan_codes if _is_counted(task.tensor) else _scan_values)(task)


def finish_rows(tally: Tally, tensor: StoredTensor) -> None:
    """Set ``count`` and the numbers of rows when all tasks of ``tensor`` have been added."""
    tally.count = tensor.count
    if len(tensor.shape) < 2:
        tally.live_rows = 0
    else:
        tally.rows, columns = matrix_shape(tensor)
        if columns == 0:
            tally.rows = 0
        tally.live_rows += len(tally.live_long_rows)
    tally.live_long_rows = set()


@dataclass
class Tally:
    """Sums over chunks, tasks and tensors; ``magnitudes`` are those of ``largest``, maybe as codes."""

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
    magnitudes: list[float] = field(default_factory=list)

    @property
    def threshold(self) -> float:
        """The magnitude that a new outlier must exceed."""
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
        self.largest = _largest_outliers(self.largest + other.largest)


def _is_counted(tensor: StoredTensor) -> bool:
    return tensor.dtype in INFINITY and tensor.count >= MIN_COUNTED


def _scan_codes(task: ScanTask) -> Tally:
    """Scan floats of 8 or 16 bits by counting their codes."""
    tally, tensor = Tally(), task.tensor
    item = ITEM_DTYPES[tensor.dtype]
    bits = item.itemsize * 8
    sign, infinity = 1 << (bits - 1), INFINITY[tensor.dtype]
    size = min(CHUNK_ELEMENTS, tensor.count)
    magnitudes, indices = np.empty(size, item), np.empty(size, np.intp)
    counts = np.zeros(1 << bits, np.int64)
    with Reader(tensor, size) as reader:
        for start, count in islice(chunks(tensor), task.first, task.last):
            codes = reader.codes(start, count)
            np.copyto(indices[:count], codes)  # bincount itself would allocate a copy every time
            counts += np.bincount(indices[:count], minlength=1 << bits)
            magnitude = np.bitwise_and(codes, sign - 1, out=magnitudes[:count])
            _update_rows_and_outliers(tally, tensor, start, magnitude, codes, infinity)
    _finish_counts(tally, counts, tensor.dtype)
    return tally


def _finish_counts(tally: Tally, counts: npt.NDArray[np.int64], dtype: str) -> None:
    codes = np.arange(len(counts), dtype=ITEM_DTYPES[dtype])
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


def _scan_values(task: ScanTask) -> Tally:
    """Scan values of any dtype in float64."""
    tally, tensor = Tally(), task.tensor
    size = min(WIDE_CHUNK_ELEMENTS, tensor.count)
    memory = np.empty((3, size))  # allocating for every chunk would take longer than the arithmetic
    with Reader(tensor, size) as reader:
        for start, count in islice(chunks(tensor, WIDE_CHUNK_ELEMENTS), task.first, task.last):
            values = decode64(reader.codes(start, count), tensor.dtype, memory[0])
            _add_values(tally, tensor, start, values, memory[1][:count], memory[2][:count])
    return tally


def _add_values(
    tally: Tally, tensor: StoredTensor, start: int, values: Floats, first: Floats, second: Floats
) -> None:
    """Add one chunk; ``first`` and ``second`` are scratch memory."""
    exponents = np.right_shift(values.view(np.int64), 52, out=first.view(np.int64))
    np.bitwise_and(exponents, EXPONENTS - 1, out=exponents)
    bins = np.bincount(exponents, minlength=EXPONENTS)
    zeros = values.size - int(np.count_nonzero(values))
    bins[0] -= zeros
    not_finite, bins[-1] = int(bins[-1]), 0
    tally.exponents += bins
    tally.zeros += zeros
    _update_rows_and_outliers(tally, tensor, start, np.abs(values, out=first), values, math.inf)
    if not_finite:
        nan = int(np.count_nonzero(np.isnan(values)))
        tally.nan += nan
        tally.inf += not_finite - nan
        values = values[np.isfinite(values)]
    if values.size:
        tally.negative += int(np.count_nonzero(values < 0))
        low, high = float(values.min()), float(values.max())
        tally.minimum, tally.maximum = min(tally.minimum, low), max(tally.maximum, high)
        scratch = first[: values.size], second[: values.size]
        moments = moments_of(values, max(-low, high), *scratch)
        tally.moments = tally.moments.merge(moments)


def _update_rows_and_outliers(
    tally: Tally,
    tensor: StoredTensor,
    start: int,
    magnitude: Codes,
    codes: Codes,
    infinity: float,
) -> None:
    """Count live rows and keep the largest values. Only the order of magnitudes matters: codes will do."""
    columns = matrix_shape(tensor)[1]
    if columns > magnitude.size:  # a part of one long row
        row_maxima = magnitude.max(keepdims=True)
        if row_maxima[0] != 0:
            tally.live_long_rows.add(start // columns)
        columns = magnitude.size
    else:
        row_maxima = _row_maxima(magnitude.reshape(-1, columns))
        tally.live_rows += int(np.count_nonzero(row_maxima))
    if not row_maxima.max() < infinity:  # true for NaN, as a float and as a code
        magnitude = np.where(magnitude < infinity, magnitude, magnitude.dtype.type(0))
        row_maxima = _row_maxima(magnitude.reshape(-1, columns))
    # Chunks come in order, so of equal values the earlier one is kept.
    rows = np.flatnonzero(row_maxima > tally.threshold)
    if not rows.size:
        return
    # The largest values are in the rows with the largest maxima.
    rows = np.sort(rows[_indices_of_largest(row_maxima[rows])])
    indices = (rows[:, None] * columns + np.arange(columns)).reshape(-1)
    indices = indices[magnitude[indices] > tally.threshold]
    indices = indices[_indices_of_largest(magnitude[indices])]
    values = decode64(codes[indices], tensor.dtype) if codes.dtype != np.float64 else codes[indices]
    outliers = [
        Outlier(tensor.name, tuple(int(i) for i in np.unravel_index(index, tensor.shape)), value)
        for index, value in zip((start + indices).tolist(), values.tolist(), strict=True)
    ]
    magnitudes = [*tally.magnitudes, *magnitude[indices].tolist()]
    tally.magnitudes = sorted(magnitudes, reverse=True)[:OUTLIERS]
    tally.largest = _largest_outliers(tally.largest + outliers)


def _indices_of_largest(values: Codes) -> npt.NDArray[np.intp]:
    """The indices of the largest values, in descending order; of equal ones the earlier."""
    indices = np.arange(values.size)
    if values.size > OUTLIERS:
        indices = np.flatnonzero(values >= np.partition(values, -OUTLIERS)[-OUTLIERS])
    return indices[np.argsort(-values[indices].astype(np.float64), kind="stable")[:OUTLIERS]]


def _row_maxima(matrix: Codes) -> Codes:
    maxima: Codes
    if matrix.shape[1] > 16:
        maxima = matrix.max(axis=1)
        return maxima
    # numpy reduces short rows slowly, one by one.
    maxima = matrix[:, 0].copy()
    for column in range(1, matrix.shape[1]):
        np.maximum(maxima, matrix[:, column], out=maxima)
    return maxima


def _largest_outliers(outliers: list[Outlier]) -> list[Outlier]:
    """The largest; of equal ones the earlier."""
    return sorted(outliers, key=lambda outlier: (-abs(outlier.value), outlier.index))[:OUTLIERS]
