"""Intervals over draws and blocks, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minilm.claims import damage
from minilm.claims.intervals import Bootstrap, t_quantile


@pytest.mark.parametrize(
    ("of_draws", "of_blocks", "tries"), [(0.009, 0.006, 300), (0.001, 0.02, 100)]
)
def test_an_interval_over_draws_and_blocks_covers_as_often_as_it_says(
    of_draws: float, of_blocks: float, tries: int
) -> None:
    """Draws that are skewed, as those of 1% of a model's parameters are; blocks; and what is neither's."""
    random, draws, mean = np.random.default_rng(0), damage.TESTED, 0.02
    missed = missed_without = 0
    widths = []
    for seed in range(tries):
        by_draw = random.gamma(4, of_draws / 2, (draws, 1)) - 2 * of_draws
        by_block = random.normal(0, of_blocks, (1, 30))
        values = mean + by_draw + by_block + random.normal(0, 0.01, (draws, 30))
        bootstrap = Bootstrap(30, seed)
        interval = bootstrap.mean_of_draws(values)
        missed += not interval.low <= mean <= interval.high
        alone = bootstrap.mean(values.mean(axis=0))
        missed_without += not alone.low <= mean <= alone.high
        widths.append(interval.half_width)
    assert missed <= 6, "1.5 of 300 at 99.5%, and chance"
    error = math.sqrt(of_draws**2 / draws + of_blocks**2 / 30 + 0.01**2 / (30 * draws))
    assert np.mean(widths) < 1.25 * t_quantile(1.995 / 2, 29) * error, "nor by being too wide"
    if of_draws > of_blocks:
        assert missed_without > 6, "with the blocks alone"


def test_draws_are_resampled_apart_from_as_many_blocks() -> None:
    values = np.random.default_rng(0).normal(size=(30, 1)) - np.random.default_rng(1).normal(
        size=30
    )
    bootstrap = Bootstrap(30, 0)
    assert bootstrap.mean_of_draws(values) == Bootstrap(30, 0).mean_of_draws(values)
    diagonal = np.arange(30.0)[:, None] - np.arange(30.0)  # the same resamples would cancel
    assert bootstrap.mean_of_draws(diagonal).half_width > 1
