"""Intervals of means, shares and medians at a level, deterministic by seed.

Means are bootstrapped over whole blocks. With few of them the percentile interval is too narrow: its
levels are expanded as Hesterberg 2015 does ("What Teachers Should Know About the Bootstrap", The American
Statistician 69), so that of a mean of normal values it is as wide as Student's. Where changes of the model
are drawn too, they are resampled with the blocks (Owen 2007, "The Pigeonhole Bootstrap", The Annals of
Applied Statistics 1). Shares: Clopper and Pearson 1934.
Shapes: n blocks, k statistics, r resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from minilm.claims.protocol import LEVEL, Finding, Interval

RESAMPLES = 4_000
Floats = NDArray[np.float64]


class Bootstrap:
    """Resamples of ``n`` blocks, drawn once: all statistics of one run see the same ones."""

    def __init__(self, n: int, seed: int) -> None:
        random = np.random.default_rng([seed, n])
        counts = random.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)  # r n
        self.weights: Floats = counts / n
        self.tail = expanded_tail(n, 1 - LEVEL)
        self.seed = seed

    def means(self, values: Floats) -> list[Interval]:
        """(k, n) -> the interval of each row's mean."""
        low, high = np.empty(len(values)), np.empty(len(values))
        for first in range(0, len(values), 64):  # r k numbers at a time
            part = slice(first, first + 64)
            resampled = self.weights @ values[part].T  # r k
            low[part], high[part] = np.quantile(resampled, [self.tail, 1 - self.tail], axis=0)
        return [
            Interval(*map(float, bounds))
            for bounds in zip(values.mean(axis=1), low, high, strict=True)
        ]

    def mean(self, values: Floats) -> Interval:
        """(n,) -> the interval of the mean."""
        return self.means(values[None])[0]

    def mean_of_draws(self, values: Floats) -> Interval:
        """(k, n), k draws on the same blocks -> the interval of the mean of all draws on all text.

        Draws and blocks are resampled independently; the levels are those of the fewer of both.
        """
        k, n = values.shape
        random = np.random.default_rng([self.seed, n, k])
        draws = random.multinomial(k, np.full(k, 1 / k), size=RESAMPLES) / k  # r k
        resampled = ((draws @ values) * self.weights).sum(axis=1)
        tail = expanded_tail(min(k, n), 1 - LEVEL)
        low, high = np.quantile(resampled, [tail, 1 - tail])
        return Interval(float(values.mean()), float(low), float(high))


def share(count: int, n: int, level: float = LEVEL) -> Interval:
    """The exact interval of a share of which ``count`` of ``n`` trials are.

    Of none and of all one bound cannot fail, and the other has the whole level: 5.3/n at 99.5%.
    """
    tail = (1 - level) / (1 if count in (0, n) else 2)

    def at_least(p: float) -> float:
        return sum(_binomial(k, n, p) for k in range(count, n + 1))

    def at_most(p: float) -> float:
        return sum(_binomial(k, n, p) for k in range(count + 1))

    low = 0.0 if count == 0 else _root(lambda p: at_least(p) - tail)
    high = 1.0 if count == n else _root(lambda p: tail - at_most(p))
    return Interval(count / n, low, high)


def student(values: Floats, level: float = LEVEL) -> Interval:
    """The t interval of the mean of a few values, such as one a seed."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean, -math.inf, math.inf)
    half = t_quantile((1 + level) / 2, n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def blocks_needed(deviation: float, margin: float) -> int:
    """Of a pilot's ``deviation``: how many blocks make the half-width ``margin``."""
    return math.ceil((NormalDist().inv_cdf((1 + LEVEL) / 2) * deviation / margin) ** 2)


def units_needed(half_width: float, n: int, margin: float) -> int:
    """Of the ``half_width`` of a mean of ``n`` values: how many of them make it ``margin``."""
    deviation = half_width * math.sqrt(n) / t_quantile((1 + LEVEL) / 2, n - 1)
    return blocks_needed(deviation, margin)


def with_need(finding: Finding) -> Finding:
    """The finding; one that is inconclusive by a wide interval, with how many units would narrow it.

    One that is between the regions says so, which more units would hardly change.
    """
    interval, rule, n = finding.interval, finding.rule, finding.n
    if finding.verdict != "inconclusive" or interval is None or finding.why:
        return finding
    if all(map(rule.lies_between, (interval.low, interval.high))):
        return replace(finding, reason="the estimate lies between the two regions")
    half_width = finding.half_width or interval.half_width
    if rule.margin and math.isfinite(half_width):
        needed = units_needed(half_width, n, rule.margin)
        if needed > n:
            half = f"for a half-width of {rule.margin:g} {rule.unit}"
            return replace(finding, reason=f"needs {needed:,} {rule.units} {half}, there are {n}")
    if rule.lies_between(interval.estimate):
        return replace(finding, reason="the estimate lies between the two regions")
    return finding


def expanded_tail(n: int, alpha: float) -> float:
    """The level of each end of a percentile interval over ``n`` blocks."""
    if n < 2:
        return 0.0
    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * t_quantile(1 - alpha / 2, n - 1))


def t_quantile(p: float, degrees: int) -> float:
    """Student's t below which the share ``p`` >= 1/2 lies (Abramowitz and Stegun 26.7.3 and 26.7.4)."""

    def within(t: float) -> float:  # the share between -t and t
        angle = math.atan(t / math.sqrt(degrees))
        sine, cosine = math.sin(angle), math.cos(angle)
        odd = degrees % 2
        term, total = (cosine if odd else 1.0), 0.0
        for power in range(odd, degrees - 1, 2):
            total += term
            term *= cosine**2 * (power + 1) / (power + 2)
        return 2 / math.pi * (angle + sine * total) if odd else sine * total

    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < 2 * p - 1 else (low, middle)
    return high


def _binomial(k: int, n: int, p: float) -> float:
    if p in (0.0, 1.0):
        return float(k == (0 if p == 0 else n))
    logarithm = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(logarithm + k * math.log(p) + (n - k) * math.log1p(-p))


def _root(increasing: Callable[[float], float]) -> float:
    """Where a function that increases in (0, 1) is zero."""
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < 0 else (low, middle)
    return (low + high) / 2
