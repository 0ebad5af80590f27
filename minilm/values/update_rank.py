"""The numerical rank of an update: the number of its singular values above rounding errors.

For a matrix with a short side they are computed from its Gram matrix; for a larger one, a randomized
range finder (Halko, Martinsson and Tropp 2011, arXiv:0909.4061) finds up to `DIRECTIONS` in two passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minilm.values.read import Floats

# Each call is one pass: matrices of consecutive whole rows.
Rows = Callable[[], Iterator[Floats]]

MAX_GRAM_SIDE = 1024
MAX_BYTES = 1 << 26
DIRECTIONS = 64
OVERSAMPLING = 8  # the last directions are inaccurate and not counted

# A rank is exact if the residual is at most this many times the expected rounding.
SLACK = 2


@dataclass(frozen=True)
class Rank:
    """A lower bound unless ``exact``; None where it is unknown, for the given ``reason``."""

    rank: int | None
    exact: bool
    reason: str | None = None


@dataclass(frozen=True)
class Rounding:
    """The rounding errors in an update: a bound of the largest singular value, expected squared norm."""

    largest: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, epsilon: float, row: float, column: float, squares: float) -> Rounding:
        """From the elements' sums of squares: of the largest row, the largest column, and all.

        The error of an element x is uniform up to epsilon |x| / 2. The norm of such a random matrix is
        close to its largest row norm plus its largest column norm; the bound is twice that.
        """
        deviation = epsilon / math.sqrt(12)
        return cls(2 * deviation * (math.sqrt(row) + math.sqrt(column)), deviation**2 * squares)


def numerical_rank(rows: Rows, shape: tuple[int, int], squares: float, rounding: Rounding) -> Rank:
    """Count the singular values above rounding and above what float64 can distinguish from zero.

    ``squares`` is the sum of the squares of all elements. The rank is exact where the residual is
    explained by rounding. If no value is above rounding, a matrix of lower than full rank (only a row
    or an element was changed) still has an exact rank; any other is unknown.
    """
    singular_values = _singular_values(rows, shape)
    if singular_values is None:
        return Rank(None, False, "too large")
    # Square roots of a Gram matrix's eigenvalues have half the digits of float64.
    largest = float(singular_values.values.max(initial=0))
    zero = largest * math.sqrt(max(shape) * float(np.finfo(np.float64).eps))
    rank, exact = singular_values.count_above(max(rounding.largest, zero))
    if rank:
        residual = squares - float(np.square(np.sort(singular_values.values)[::-1][:rank]).sum())
        height, width = (1 - rank / side for side in shape)
        expected = SLACK * rounding.squares * height * width + min(shape) * zero**2
        return Rank(rank, exact and (rank == min(shape) or residual <= expected))
    rank, exact = singular_values.count_above(zero)
    if exact and 0 < rank < min(shape):
        return Rank(rank, True)
    return Rank(None, False, "below rounding")


@dataclass(frozen=True)
class _SingularValues:
    """All singular values, or the first ``directions`` and some inaccurate ones after them."""

    values: Floats
    directions: int | None = None

    def count_above(self, limit: float) -> tuple[int, bool]:
        """The number of values above ``limit``, and whether no further ones can be."""
        count = int(np.count_nonzero(self.values > limit))
        if self.directions is None:
            return count, True
        return min(count, self.directions), count < self.directions


def _singular_values(rows: Rows, shape: tuple[int, int]) -> _SingularValues | None:
    """The singular values of the matrix; None if `MAX_BYTES` of memory are too little."""
    height, width = shape
    if width <= MAX_GRAM_SIDE:
        gram = np.zeros((width, width))
        for matrix in rows():
            gram += matrix.T @ matrix
        return _SingularValues(_roots(gram))
    if height <= MAX_GRAM_SIDE and height * width * 8 <= MAX_BYTES:
        whole = np.concatenate(list(rows()))
        return _SingularValues(_roots(whole @ whole.T))
    max_samples = MAX_BYTES // (8 * max(height, width))
    samples = min(DIRECTIONS + OVERSAMPLING, max_samples, height)
    directions = samples if samples == height else samples - OVERSAMPLING
    if directions < 1:
        return None
    test_matrix = np.random.default_rng(0).standard_normal((width, samples))
    basis, _ = np.linalg.qr(np.concatenate([matrix @ test_matrix for matrix in rows()]))
    projection, first = np.zeros((samples, width)), 0
    for matrix in rows():
        projection += basis[first : first + len(matrix)].T @ matrix
        first += len(matrix)
    return _SingularValues(
        _roots(projection @ projection.T), None if samples == height else directions
    )


def _roots(gram: Floats) -> Floats:
    roots: Floats = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))
    return roots
