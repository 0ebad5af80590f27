"""Count, mean and the second to fourth central moments of a stream of numbers, in float64.

Each chunk is centred on its own mean, and chunks are merged by the formulas of Pébay (2008), "Formulas
for robust, one-pass parallel computation of covariances and arbitrary-order statistical moments",
Sandia report SAND2008-6212, which avoids cancellation where the mean is large. Numbers whose fourth
powers would underflow are scaled by a power of two, which is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minilm.values.read import Floats

# Fourth powers of numbers below it are near the end of float64's range, or beyond.
TINY = 2.0**-250


@dataclass(frozen=True)
class Moments:
    """``second``, ``third``, ``fourth`` are sums of powers of the deviations from the mean.

    All are those of the numbers times ``scale``.
    """

    count: int = 0
    mean: float = 0.0
    second: float = 0.0
    third: float = 0.0
    fourth: float = 0.0
    scale: float = 1.0

    def merge(self, other: Moments) -> Moments:
        """The moments of both streams together."""
        if self.count == 0 or other.count == 0:
            return self if other.count == 0 else other
        if self.scale != other.scale:
            # Of zeros alone, the moments are zero at any scale.
            scale = min((m.scale for m in (self, other) if m.mean or m.second), default=1.0)
            return self._scaled(scale).merge(other._scaled(scale))
        n, m = self.count, other.count
        total = n + m
        a, b, delta = n / total, m / total, other.mean - self.mean
        square = delta * delta  # a product of floats overflows to infinity, a power raises
        second = self.second + other.second + square * a * m
        third = (
            self.third
            + other.third
            + square * delta * a * m * (a - b)
            + 3 * delta * (a * other.second - b * self.second)
        )
        fourth = (
            self.fourth
            + other.fourth
            + square * square * a * m * (a * a - a * b + b * b)
            + 6 * square * (a * a * other.second + b * b * self.second)
            + 4 * delta * (a * other.third - b * self.third)
        )
        return Moments(total, self.mean + delta * b, second, third, fourth, self.scale)

    def _scaled(self, scale: float) -> Moments:
        r = scale / self.scale
        second, third = self.second * r * r, self.third * r * r * r
        return Moments(self.count, self.mean * r, second, third, self.fourth * r * r * r * r, scale)


def moments_of(values: Floats, largest: float, deviation: Floats, square: Floats) -> Moments:
    """The moments of at least one finite number, of magnitudes up to ``largest``.

    The others are scratch memory of the same size.
    """
    scale = 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        if 0 < largest < TINY:
            scale = 2.0 ** min(-math.frexp(largest)[1], 1000)  # 2^1074 is beyond float64
            values = values * scale
        mean = float(np.add.reduce(values)) / values.size
        np.subtract(values, mean, out=deviation)
        np.multiply(deviation, deviation, out=square)
        second = float(np.add.reduce(square))
        np.multiply(deviation, square, out=deviation)
        third = float(np.add.reduce(deviation))
        np.multiply(square, square, out=square)
        return Moments(values.size, mean, second, third, float(np.add.reduce(square)), scale)


def moments_of_counts(values: Floats, counts: npt.NDArray[np.int64]) -> Moments:
    """The moments of a non-empty stream in which ``values[i]`` occurs ``counts[i]`` times."""
    total = int(counts.sum())
    mean = float((values * counts).sum()) / total
    deviation = values - mean
    with np.errstate(over="ignore"):
        second, third, fourth = (float((deviation**power * counts).sum()) for power in (2, 3, 4))
    return Moments(total, mean, second, third, fourth)
