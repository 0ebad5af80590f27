"""--stats: what the values of a checkpoint are like, in one pass over the file and bounded memory.

Large files are read by two processes, since numpy counts under the interpreter's lock. The stable rank
takes passes of its own (`spectrum.py`) and can be left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from minilm.formats.header import StoredTensor
from minilm.values.read import why_unread
from minilm.values.scan import (
    EXPONENT_BIAS,
    Outlier,
    Part,
    Tally,
    finish_rows,
    parts,
    scanned,
)
from minilm.values.stable_rank import stable_rank_of
from minilm.values.workers import can_share, in_order

# (bytes done, bytes in all, tensor's name)
Progress = Callable[[int, int, str], None]

THREADS = 2
PARALLEL_BYTES = 1 << 27  # from here on, a second process pays


@dataclass(frozen=True)
class Histogram:
    """Finite values other than zero by magnitude: ``counts[i]`` have 2^e <= |x| < 2^(e+1).

    e is ``lowest_exponent`` + i. The bin -1023 also holds everything smaller.
    """

    lowest_exponent: int = 0
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class TensorStatistics:
    """Mean to histogram are over the finite values; None where there are none, or out of range.

    ``std`` is of the population (divided by n), ``kurtosis`` the excess over a normal distribution's
    (m4 / m2^2 - 3, biased). ``rows`` are runs along the last dimension, None for vectors; dead ones
    hold nothing but zeros. ``stable_rank`` is |W|_F^2 / sigma_max^2 of a finite matrix, see
    `spectrum.stable_rank_of` for its tolerance.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    count: int
    nan: int
    inf: int
    zeros: int
    negative: int
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    norm: float | None
    kurtosis: float | None
    rows: int | None
    dead_rows: int | None
    stable_rank: float | None
    outliers: tuple[Outlier, ...]
    histogram: Histogram


@dataclass(frozen=True)
class Unread:
    """A tensor whose values were not read, why, and how many values of the model it stands for."""

    name: str
    reason: str
    count: int


@dataclass(frozen=True)
class Statistics:
    """All readable tensors, everything together as one, and what could not be read.

    ``total`` is of ``total.count`` of all ``values`` that the checkpoint stands for.
    """

    tensors: tuple[TensorStatistics, ...]
    total: TensorStatistics
    unread: tuple[Unread, ...]
    values: int


def statistics(
    tensors: Iterable[StoredTensor],
    *,
    left_out: Mapping[str, Unread] = MappingProxyType({}),
    stable_rank: bool = True,
    progress: Progress | None = None,
) -> Statistics:
    """Read every tensor once, but for those ``left_out`` by name, and describe its values.

    Raises FormatError for a file cut short, InputError where a reading process was killed.
    """
    listed = list(tensors)
    unread = {t.name: found for t in listed if (found := left_out.get(t.name) or unreadable(t))}
    readable = [tensor for tensor in listed if tensor.name not in unread]
    results: list[TensorStatistics] = []
    total = Tally()
    with closing(_tallies(readable, progress)) as tallies:
        for tensor, tally in tallies:
            described = _describe(tensor.name, tensor.dtype, tensor.shape, tally)
            if stable_rank:
                described = replace(described, stable_rank=_stable_rank(tensor, described))
            results.append(described)
            total.add(tally)
    return Statistics(
        tuple(results),
        _describe("total", "", (), total),
        tuple(unread.values()),
        total.count + sum(tensor.count for tensor in unread.values()),
    )


def unreadable(tensor: StoredTensor) -> Unread | None:
    """``tensor`` as one that cannot be read; None if it can."""
    reason = why_unread(tensor)
    return None if reason is None else Unread(tensor.name, reason, tensor.count)


def _tallies(
    tensors: Sequence[StoredTensor], progress: Progress | None
) -> Generator[tuple[StoredTensor, Tally], None, None]:
    """The tally of every tensor, in order; ``progress`` hears of every part."""
    work = [part for tensor in tensors for part in parts(tensor)]
    size = sum(tensor.nbytes for tensor in tensors)
    begun, tally = 0, Tally()  # bytes of the tensors before this one
    with closing(_scanned(work, size)) as found_parts:
        for part, found in zip(work, found_parts, strict=True):
            tally.add(found)
            if progress is not None:
                progress(begun + part.bytes_read, size, part.tensor.name)
            if part.is_end:
                begun += part.tensor.nbytes
                finish_rows(tally, part.tensor)
                yield part.tensor, tally
                tally = Tally()


def _scanned(work: Sequence[Part], size: int) -> Generator[Tally, None, None]:
    """What every part adds, by two processes where there is so much to read that they pay."""
    if size < PARALLEL_BYTES or not can_share():
        yield from map(scanned, work)
    else:
        yield from in_order(scanned, work, [part.nbytes for part in work], "--stats")


def _stable_rank(tensor: StoredTensor, known: TensorStatistics) -> float | None:
    if len(tensor.shape) != 2 or known.nan or known.inf or not known.norm:
        return None
    assert known.min is not None
    assert known.max is not None
    with ThreadPoolExecutor(THREADS) as pool:
        return stable_rank_of(tensor, known.norm, max(-known.min, known.max), pool)


def _describe(name: str, dtype: str, shape: tuple[int, ...], tally: Tally) -> TensorStatistics:
    moments = tally.moments
    n = moments.count
    variance = moments.second / n if n else math.nan
    varies = n and moments.second > 0
    occupied = np.flatnonzero(tally.exponents)
    low, high = (int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else (EXPONENT_BIAS, 0)
    return TensorStatistics(
        name=name,
        dtype=dtype,
        shape=shape,
        count=tally.count,
        nan=tally.nan,
        inf=tally.inf,
        zeros=tally.zeros,
        negative=tally.negative,
        mean=finite(moments.mean) if n else None,
        std=finite(math.sqrt(variance)) if n else None,
        min=tally.minimum if n else None,
        max=tally.maximum if n else None,
        norm=finite(math.sqrt(moments.second + n * moments.mean * moments.mean)),
        kurtosis=finite(moments.fourth / n / variance / variance - 3) if varies else None,
        rows=tally.rows if len(shape) > 1 or not dtype else None,
        dead_rows=tally.rows - tally.live_rows if len(shape) > 1 or not dtype else None,
        stable_rank=None,
        outliers=tuple(tally.largest),
        histogram=Histogram(low - EXPONENT_BIAS, tuple(tally.exponents[low:high].tolist())),
    )


def finite(value: float) -> float | None:
    """``value``, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None
