"""Losses of models by their size: loss = E + A·N^-a, fitted by least squares, with intervals by bootstrap.

As in Hoffmann et al. 2022 (arXiv:2203.15556) for one amount of text. With E, A and a free, few sizes leave
each of them open; the interval of a prediction one step beyond them says how much. Shapes: k sizes, s seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilm.claims.protocol import Interval
from minilm.claims.trials import Floats

EXPONENTS = np.geomspace(0.02, 2, 120)
RESAMPLES = 1000
LAW_LEVEL = 0.95  # of the intervals here: one that is wider would hardly fail to predict


@dataclass(frozen=True)
class PowerLaw:
    """``floor`` + ``scale`` N^-``exponent``, of one fit or of several, one an element."""

    floor: Floats
    scale: Floats
    exponent: Floats

    def at(self, size: float) -> Floats:
        """The loss of a model of so many parameters."""
        loss: Floats = self.floor + self.scale * size**-self.exponent
        return loss


def fit(sizes: Floats, losses: Floats) -> PowerLaw:
    """The least squares over sizes (k,) and losses (..., k), with a floor and a scale of at least zero.

    Exponents are tried one by one; for each, floor and scale are exact.
    """
    powers = sizes ** -EXPONENTS[:, None]  # exponents k
    centred = powers - powers.mean(axis=1, keepdims=True)
    scale = np.maximum(0.0, losses @ centred.T / (centred**2).sum(axis=1))  # ... exponents
    floor = losses.mean(axis=-1, keepdims=True) - scale * powers.mean(axis=1)
    without_floor = np.maximum(0.0, losses @ powers.T / (powers**2).sum(axis=1))
    scale = np.where(floor < 0, without_floor, scale)
    floor = np.maximum(floor, 0.0)
    residuals = losses[..., None, :] - floor[..., None] - scale[..., None] * powers
    best = (residuals**2).sum(axis=-1).argmin(axis=-1)[..., None]
    floor, scale = (np.take_along_axis(each, best, axis=-1)[..., 0] for each in (floor, scale))
    return PowerLaw(floor, scale, EXPONENTS[best[..., 0]])


def bootstrapped(sizes: Floats, losses: Floats, random: np.random.Generator) -> PowerLaw:
    """Laws of (k, s) losses whose seeds are drawn again, the same ones for all sizes: they are paired."""
    s = losses.shape[1]
    drawn = losses[:, random.integers(s, size=(RESAMPLES, s))]  # k resamples s
    return fit(sizes, drawn.mean(axis=-1).T)


def bounds(values: Floats) -> tuple[float, float]:
    """Between which `LAW_LEVEL` of the values are."""
    low, high = np.quantile(values, [(1 - LAW_LEVEL) / 2, (1 + LAW_LEVEL) / 2])
    return float(low), float(high)


def predicted(
    sizes: Floats, losses: Floats, own: Floats, size: float, random: np.random.Generator
) -> Interval:
    """The loss of one more run, of ``size``, from (k, s) losses of other seeds, and its own seed's (k,).

    A seed has its own stretch of text: what it is off at all sizes, it is off at the larger one too. Besides
    the error of the fit, sizes deviate from the law, and runs from what size and seed say.
    """
    k, s = losses.shape
    means = losses.mean(axis=1)
    law = fit(sizes, means)
    of_sizes = means - np.array([law.at(each) for each in sizes])
    levelled = losses - losses.mean(axis=0) + losses.mean()
    of_runs = levelled - means[:, None]
    run = (of_runs**2).sum() / max(1, (k - 1) * (s - 1))
    variance = run * (1 + 1 / k) + (of_sizes**2).sum() / max(1, k - 3)
    of_seed = float((own - means).mean())
    values = bootstrapped(sizes, levelled, random).at(size) + of_seed
    return Interval(
        float(law.at(size)) + of_seed,
        *bounds(values + random.normal(0, np.sqrt(variance), len(values))),
    )
