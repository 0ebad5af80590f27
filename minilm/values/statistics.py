"""--stats: statistics of a checkpoint's values, in one pass over the file and bounded memory.

Large files are read by two processes, since numpy's counting holds the GIL. The stable rank takes
further passes (`stable_rank.py`) and is optional.
"""

from __future__ import annotations

import math
import sys
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
    ScanTask,
    Tally,
    finish_rows,
    scan,
    scan_tasks,
)
from minilm.values.stable_rank import stable_rank_of
from minilm.values.workers import can_have_children, map_in_order

# (bytes read, total bytes, tensor's name)
Progress = Callable[[int, int, str], None]

THREADS = 2
PARALLEL_BYTES = 1 << 27  # for less, a second process does not pay off


@dataclass(frozen=True)
class Histogram:
    """Finite non-zero values by magnitude: ``counts[i]`` have 2^e <= |x| < 2^(e+1).

    e is ``lowest_exponent`` + i. The bin of -1023 includes all smaller values.
    """

    lowest_exponent: int = 0
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class TensorStatistics:
    """Mean to histogram are of the finite values; None where there are none, or beyond float64.

    ``std`` is the population's (divided by n), ``kurtosis`` the excess over a normal distribution's
    (m4 / m2^2 - 3, biased). ``rows`` are along the last dimension, None for vectors; dead ones are all
    zeros. ``stable_rank`` is |W|_F^2 / sigma_max^2 of a finite matrix; its tolerance is that of
    `stable_rank.stable_rank_of`.
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
    """A tensor whose values were not read, the reason, and the number of the model's values in it."""

    name: str
    reason: str
    count: int


@dataclass(frozen=True)
class Statistics:
    """Statistics of each readable tensor and of all of them together, and the unread tensors.

    ``total`` is of ``total.count`` of the model's ``values``.
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
    """Read every tensor once, except those in ``left_out``, and compute its statistics.

    Raises FormatError for a truncated file, InputError where a reading process was killed.
    """
    all_tensors = list(tensors)
    unread = {}
    for tensor in all_tensors:
        entry = left_out.get(tensor.name) or unreadable(tensor)
        if entry is not None:
            unread[tensor.name] = entry
    readable = [tensor for tensor in all_tensors if tensor.name not in unread]
    results: list[TensorStatistics] = []
    total = Tally()
    with closing(_tallies(readable, progress)) as tallies:
        for tensor, tally in tallies:
            result = _describe(tensor.name, tensor.dtype, tensor.shape, tally)
            if stable_rank:
                result = replace(result, stable_rank=_stable_rank(tensor, result))
            results.append(result)
            total.add(tally)
    return Statistics(
        tuple(results),
        _describe("total", "", (), total),
        tuple(unread.values()),
        total.count + sum(tensor.count for tensor in unread.values()),
    )


def unreadable(tensor: StoredTensor) -> Unread | None:
    """``tensor`` as an unread one if it cannot be read, else None."""
    reason = why_unread(tensor)
    return None if reason is None else Unread(tensor.name, reason, tensor.count)


def _tallies(
    tensors: Sequence[StoredTensor], progress: Progress | None
) -> Generator[tuple[StoredTensor, Tally], None, None]:
    """The tally of every tensor, in order; ``progress`` is called after every task."""
    tasks = [task for tensor in tensors for task in scan_tasks(tensor)]
    total_bytes = sum(tensor.nbytes for tensor in tensors)
    bytes_before, tally = 0, Tally()  # of the tensors before this one
    with closing(_scan_all(tasks, total_bytes)) as task_tallies:
        for task, task_tally in zip(tasks, task_tallies, strict=True):
            tally.add(task_tally)
            if progress is not None:
                progress(bytes_before + task.bytes_read, total_bytes, task.tensor.name)
            if task.is_last:
                bytes_before += task.tensor.nbytes
                finish_rows(tally, task.tensor)
                yield task.tensor, tally
                tally = Tally()


def _scan_all(tasks: Sequence[ScanTask], total_bytes: int) -> Generator[Tally, None, None]:
    """The tally of every task, computed by two processes for large files."""
    if total_bytes < PARALLEL_BYTES or not can_have_children():
        yield from map(scan, tasks)
    else:
        yield from map_in_order(scan, tasks, [task.nbytes for task in tasks], "--stats")


def _stable_rank(tensor: StoredTensor, result: TensorStatistics) -> float | None:
    if len(tensor.shape) != 2 or result.nan or result.inf or not result.norm:
        return None
    assert result.min is not None
    assert result.max is not None
    with ThreadPoolExecutor(THREADS) as pool:
        return stable_rank_of(tensor, result.norm, max(-result.min, result.max), pool)


def _describe(name: str, dtype: str, shape: tuple[int, ...], tally: Tally) -> TensorStatistics:
    moments = tally.moments
    n = moments.count
    variance = moments.second / n if n else math.nan
    # Fourth powers underflow where deviations are small beside the largest value.
    has_kurtosis = n and moments.fourth >= sys.float_info.min
    bins = np.flatnonzero(tally.exponents)
    low, high = (int(bins[0]), int(bins[-1]) + 1) if bins.size else (EXPONENT_BIAS, 0)
    return TensorStatistics(
        name=name,
        dtype=dtype,
        shape=shape,
        count=tally.count,
        nan=tally.nan,
        inf=tally.inf,
        zeros=tally.zeros,
        negative=tally.negative,
        mean=finite(moments.mean / moments.scale) if n else None,
        std=finite(math.sqrt(moments.second) / math.sqrt(n) / moments.scale) if n else None,
        min=tally.minimum if n else None,
        max=tally.maximum if n else None,
        norm=finite(math.sqrt(moments.second + n * moments.mean * moments.mean) / moments.scale),
        kurtosis=finite(moments.fourth / n / variance / variance - 3) if has_kurtosis else None,
        rows=tally.rows if len(shape) > 1 or not dtype else None,
        dead_rows=tally.rows - tally.live_rows if len(shape) > 1 or not dtype else None,
        stable_rank=None,
        outliers=tuple(tally.largest),
        histogram=Histogram(low - EXPONENT_BIAS, tuple(tally.exponents[low:high].tolist())),
    )


def finite(value: float) -> float | None:
    """``value``, or None where JSON cannot represent it."""
    return value if math.isfinite(value) else None
