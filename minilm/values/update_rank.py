"""The numerical rank of an update: how many of its singular values stand above rounding.

A matrix with a short side is taken whole, through its Gram matrix. Of a larger one, a random range
finder (Halko, Martinsson and Tropp 2011, arXiv:0909.4061) sees up to `DIRECTIONS` in two passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minilm.values.read import Floats

# Matrices of whole rows, top to bottom; called once for each pass.
Rows = Callable[[], Iterator[Floats]]

SHORT_SIDE = 1024
KEPT_BYTES = 1 << 26
DIRECTIONS = 64
MARGIN = 8  # more directions than are counted: the last ones are seen badly


# What is left over beside a rank may be so many times what rounding is expected to leave.
SLACK = 2


@dataclass(frozen=True)
class Rank:
    """``rank``; where not ``exact``, there are at least so many. None, and why, where it is not told."""

    rank: int | None
    exact: bool
    reason: str | None = None


@dataclass(frozen=True)
class Rounding:
    """What rounding can have added to an update.

    ``largest`` bounds its largest singular value, ``squares`` is its expected squared norm.
    """

    largest: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, epsilon: float, row: float, column: float, squares: float) -> Rounding:
        """Of elements with these sums of squares: of the largest row, of the largest column, of all.

        Rounding moves an element x by up to epsilon |x| / 2, evenly spread: a random matrix whose
        norm is close to its largest row norm plus its largest column norm. Doubled, to be above that.
        """
        deviation = epsilon / math.sqrt(12)
        return cls(2 * deviation * (math.sqrt(row) + math.sqrt(column)), deviation**2 * squares)


def numerical_rank(rows: Rows, shape: tuple[int, int], squares: float, rounding: Rounding) -> Rank:
    """Count the singular values above rounding and above what float64 can tell from zero.

    ``squares`` is the sum of the squares of all elements. The rank is exact where what is left over
    is no more than rounding. Where nothing stands above it, a matrix that lacks directions (one row
    or one element was changed) has its own rank; of any other the rank is unknown.
    """
    seen = _singular_values(rows, shape)
    if seen is None:
        return Rank(None, False, "too large")
    # The root of a Gram matrix knows half of the digits of float64.
    largest = float(seen.values.max(initial=0))
    zero = largest * math.sqrt(max(shape) * float(np.finfo(np.float64).eps))
    rank, exact = seen.above(max(rounding.largest, zero))
    if rank:
        left = squares - float(np.square(np.sort(seen.values)[::-1][:rank]).sum())
        height, width = (1 - rank / side for side in shape)
        allowed = SLACK * rounding.squares * height * width + min(shape) * zero**2
        return Rank(rank, exact and (rank == min(shape) or left <= allowed))
    rank, exact = seen.above(zero)
    if exact and 0 < rank < min(shape):
        return Rank(rank, True)
    return Rank(None, False, "below rounding")


@dataclass(frozen=True)
class _Seen:
    """Singular values: all, or the first ``directions`` and some more that are seen badly."""

    values: Floats
    directions: int | None = None

    def above(self, limit: float) -> tuple[int, bool]:
        """How many are above ``limit``, and whether that is all of them."""
        count = int(np.count_nonzero(self.values > limit))
        if self.directions is None:
            return count, True
        return min(count, self.directions), count < self.directions


def _singular_values(rows: Rows, shape: tuple[int, int]) -> _Seen | None:
    """None where bounded memory has no room for it."""
    height, width = shape
    if width <= SHORT_SIDE:
        gram = np.zeros((width, width))
        for part in rows():
            gram += part.T @ part
        return _Seen(_roots(gram))
    if height <= SHORT_SIDE and height * width * 8 <= KEPT_BYTES:
        whole = np.concatenate(list(rows()))
        return _Seen(_roots(whole @ whole.T))
    room = KEPT_BYTES // (8 * max(height, width))
    found = min(DIRECTIONS + MARGIN, room, height)
    directions = found if found == height else found - MARGIN
    if directions < 1:
        return None
    start = np.random.default_rng(0).standard_normal((width, found))
    image = np.concatenate([part @ start for part in rows()])
    basis, _ = np.linalg.qr(image)
    small, first = np.zeros((found, width)), 0
    for part in rows():
        small += basis[first : first + len(part)].T @ part
        first += len(part)
    return _Seen(_roots(small @ small.T), None if found == height else directions)


def _roots(gram: Floats) -> Floats:
    roots: Floats = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))
    return roots
