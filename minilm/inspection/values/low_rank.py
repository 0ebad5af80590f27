"""The numerical rank of an update: how many of its singular values stand above rounding.

A matrix with a short side is taken whole, through its Gram matrix. Of a larger one, a random range
finder (Halko, Martinsson and Tropp 2011, arXiv:0909.4061) sees up to `DIRECTIONS` in two passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minilm.inspection.values.reading import Floats

# Matrices of whole rows, top to bottom; called once for each pass.
Rows = Callable[[], Iterator[Floats]]

SHORT_SIDE = 1024
KEPT_BYTES = 1 << 26
DIRECTIONS = 64
MARGIN = 8  # more directions than are counted: the last ones are seen badly


@dataclass(frozen=True)
class Rank:
    """``rank``; where not ``exact``, there are at least so many."""

    rank: int
    exact: bool


def numerical_rank(rows: Rows, shape: tuple[int, int], noise: float) -> Rank | None:
    """Count the singular values above ``noise`` and above what float64 can tell from zero.

    An update that is not zero has rank 1 at least. None where bounded memory has no room for it.
    """
    height, width = shape
    if width <= SHORT_SIDE:
        gram = np.zeros((width, width))
        for part in rows():
            gram += part.T @ part
        return Rank(_count(_roots(gram), noise, shape), True)
    if height <= SHORT_SIDE and height * width * 8 <= KEPT_BYTES:
        whole = np.concatenate(list(rows()))
        return Rank(_count(_roots(whole @ whole.T), noise, shape), True)
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
    rank = _count(_roots(small @ small.T), noise, shape)
    return Rank(min(rank, directions), rank < directions or found == height)


def rounding_noise(epsilon: float, row: float, column: float) -> float:
    """The largest singular value that rounding a matrix can make; its largest row and column norm.

    Rounding moves an element x by up to epsilon |x| / 2, evenly spread: a random matrix whose norm
    is close to its largest row norm plus its largest column norm. Doubled, to be above the edge.
    """
    return 2 * (row + column) * epsilon / math.sqrt(12)


def _roots(gram: Floats) -> Floats:
    roots: Floats = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))
    return roots


def _count(singular: Floats, noise: float, shape: tuple[int, int]) -> int:
    largest = float(singular.max(initial=0))
    # The root of a Gram matrix knows half of the digits of float64.
    limit = max(noise, largest * math.sqrt(max(shape) * float(np.finfo(np.float64).eps)))
    return max(int(np.count_nonzero(singular > limit)), int(largest > 0))
