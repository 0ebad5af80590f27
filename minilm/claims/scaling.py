"""Claim 3: more parameters make a model more capable, and data and recipe matter as much.

A ladder of sizes of one family, each on three amounts of text, with the rate chosen for each cell on
other blocks. *Size*: the slope of the loss on ln N. *Data* and *recipe*: what four times the text, and
what the spread of three recipes is worth, in the gain by four times the parameters: as much is between
half and twice. A power law E + A·N^-a, fitted to all sizes but the largest, must give that. N counts the
table once; the head is tied. Besides the same text for all, each size has tokens in proportion to its
parameters, as Hoffmann et al. 2022 (arXiv:2203.15556) find optimal, though far fewer than their 20 a
parameter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minilm.architectures.minilm import layout as minilm_layout
from minilm.claims.cells import OVER_BUDGET, Cells
from minilm.claims.intervals import student, t_quantile
from minilm.claims.protocol import LEVEL, Finding, Interval, Region, Rule, not_run
from minilm.claims.small_models import RATES, ROWS, SEEDS, Arm, chosen_rate, losses_of, new_model
from minilm.claims.subject import Subject
from minilm.claims.tables import table
from minilm.claims.trials import Floats
from minilm.progress import progress_bar
from minilm.render.line_chart import log_chart

SIZES = ((16, 1), (24, 2), (32, 2), (48, 3), (64, 3), (96, 4))  # width, layers
LEFT_OUT = (128, 4)
TOKENS = (2**14, 2**16, 2**18)
RECIPE_SIZE = SIZES[3]
MOST_WORTH = 20.0  # of the logarithm of so many times the parameters

SIZE = Rule(
    name="scaling/size",
    statement="more parameters, more capable",
    statistic="slope of the loss on ln N",
    unit="nats a token",
    supported=Region(high=0),
    contradicted=Region(0),
    least=SEEDS,
    units="seeds",
)
DATA = Rule(
    name="scaling/data",
    statement="data matter as much as parameters",
    statistic="|ln r|, r the gain by 4 times the text in gains by 4 times the parameters",
    unit="",
    supported=Region(0, math.log(2)),
    contradicted=Region(math.log(2)),
    least=SEEDS,
    units="seeds",
)
RECIPE = Rule(
    name="scaling/recipe",
    statement="the recipe matters as much as parameters",
    statistic=(
        f"|ln r|, r the spread of the rates {', '.join(map(str, RATES))} in gains by 4 times the parameters"
    ),
    unit="",
    supported=Region(0, math.log(2)),
    contradicted=Region(math.log(2)),
    least=SEEDS,
    units="seeds",
)
PREDICTION = Rule(
    name="scaling/prediction",
    statement="a power law gives the loss of a larger size",
    statistic="share of the seeds whose loss lies in the interval that the smaller sizes give",
    unit="share",
    supported=Region(low=0.8),
    contradicted=Region(high=0.5),
    least=SEEDS,
    units="seeds",
)
RULES = (SIZE, DATA, RECIPE, PREDICTION)
PUBLISHED = (
    "parameters grow with compute as C^0.73 (Kaplan et al. 2020, arXiv:2001.08361), C^0.50 (Hoffmann et al. "
    "2022, arXiv:2203.15556)"
)


def measure(subject: Subject, cells: Cells) -> list[Finding]:
    """All findings, or that trainings are missing."""
    length = subject.blocks.tokens.shape[1]
    grid: dict[tuple[tuple[int, int], int], list[float]] = {}
    cases = [(size, tokens) for tokens in TOKENS for size in SIZES] + [(LEFT_OUT, TOKENS[-1])]
    for size, tokens in progress_bar(iterable=cases, desc="ladder", leave=False):
        of_seeds = _losses(subject, cells, arm_of(size, tokens, length))
        if of_seeds is not None:
            grid[size, tokens] = of_seeds
    recipes = {
        rate: [
            losses_of(subject, cells, arm_of(RECIPE_SIZE, TOKENS[-1], length), rate, seed)
            for seed in range(SEEDS)
        ]
        for rate in RATES
    }
    if len(grid) < len(cases) or any(each is None for row in recipes.values() for each in row):
        return [not_run(rule, OVER_BUDGET) for rule in RULES]
    counts = [count_of(subject, size, length) for size in (*SIZES, LEFT_OUT)]
    tokens_of = [max(ROWS * length, TOKENS[-1] * count // counts[-2]) for count in counts[:-1]]
    proportional = [
        _losses(subject, cells, arm_of(size, tokens, length), arm_of(size, TOKENS[-1], length))
        for size, tokens in zip(SIZES, tokens_of, strict=True)
    ]
    if None in proportional:
        return [not_run(rule, OVER_BUDGET) for rule in RULES]
    losses = np.array([[grid[size, tokens] for size in SIZES] for tokens in TOKENS])
    spread = np.array([[row["test"] for row in rows if row] for rows in recipes.values()])
    return findings(
        counts,
        losses,
        np.array(grid[LEFT_OUT, TOKENS[-1]]),
        np.ptp(spread, axis=0),
        (tokens_of, np.array(proportional)),
    )


def arm_of(size: tuple[int, int], tokens: int, length: int) -> Arm:
    """The model of one rung on so much text, read once."""
    width, layers = size
    fields = {"d_model": width, "num_layers": layers, "num_heads": max(1, width // 16)}
    return Arm(fields, steps=max(1, tokens // (ROWS * length)), tokens=tokens)


def count_of(subject: Subject, size: tuple[int, int], length: int) -> int:
    """Parameters by the ledger."""
    return minilm_layout(new_model(subject, arm_of(size, 1, length), 0, length).config).count()


def _losses(
    subject: Subject, cells: Cells, arm: Arm, rated: Arm | None = None
) -> list[float] | None:
    """The loss of each seed at the rate that is best for ``rated``, by default for the arm itself."""
    rate = chosen_rate(subject, cells, rated or arm)
    if rate is None:
        return None
    rows = [losses_of(subject, cells, arm, rate, seed) for seed in range(SEEDS)]
    losses = [row["test"] for row in rows if row is not None]
    return losses if len(losses) == SEEDS else None


def findings(
    counts: Sequence[int],
    losses: Floats,
    left_out: Floats,
    spread: Floats,
    proportional: tuple[Sequence[int], Floats],
) -> list[Finding]:
    """Of the ``losses`` (amounts of text, sizes, seeds), those of the largest size and of recipes, (seeds,).

    ``counts`` are the parameters of each size, the one that was left out last; ``proportional`` tokens in
    proportion to them, and the losses (sizes, seeds).
    """
    logarithms = np.log(np.array(counts[:-1], np.float64))
    most = losses[-1]  # sizes, seeds
    tokens_of, optimal = proportional
    optimal_slope = float(np.polyfit(logarithms, optimal, 1)[0].mean())
    slopes = np.polyfit(logarithms, most, 1)[0]
    by_size = -slopes * math.log(4)
    by_data = (losses[-2] - losses[-1]).mean(axis=0)
    prediction, half = predicted(counts, most)
    inside = np.abs(left_out - prediction) <= half
    n = len(slopes)
    rows = [
        (
            f"{count:,}",
            *(f"{each.mean():.4f}" for each in losses[:, number]),
            f"{optimal[number].mean():.4f} on {tokens_of[number]:,}",
        )
        for number, count in enumerate(counts[:-1])
    ]
    titles = {"parameters": "number"} | {f"{tokens:,} tokens": "number" for tokens in TOKENS}
    titles |= {"tokens in proportion": "number"}
    lines = {
        f"{tokens:,} tokens": list(
            zip(map(float, counts), map(float, each.mean(axis=1)), strict=False)
        )
        for tokens, each in zip(TOKENS, losses, strict=True)
    }
    chart = log_chart("loss by parameters", "parameters", lines)
    worth = math.exp(min(float(spread.mean()) / max(float(-slopes.mean()), 1e-9), MOST_WORTH))
    return [
        Finding(
            SIZE,
            student(slopes),
            n=n,
            trials=losses.size,
            text=(
                f"Four times the parameters gain {by_size.mean():.4f} nats on the same text, and "
                f"{-optimal_slope * math.log(4):.4f} with four times the text beside them. Published: "
                f"{PUBLISHED}."
            ),
            details={
                "parameters": list(counts),
                "losses": losses.tolist(),
                "tokens_in_proportion": list(tokens_of),
                "losses_in_proportion": optimal.tolist(),
            },
            tables=(table("Loss by size and text", titles, rows),),  # type: ignore[arg-type]
            charts=() if chart is None else (chart,),
        ),
        Finding(
            DATA,
            _as_much(by_data, by_size),
            n=n,
            text=f"Four times the text gains {by_data.mean():.4f} nats.",
        ),
        Finding(
            RECIPE,
            _as_much(spread, by_size),
            n=n,
            text=(
                f"Between the best and the worst rate are {spread.mean():.4f} nats, as between models one of "
                f"which has {worth:.3g} times the parameters."
            ),
        ),
        Finding(
            PREDICTION,
            Interval.exact(float(inside.mean())),
            n=n,
            text=(
                f"Of {counts[-1]:,} parameters {prediction:.4f} ± {half:.4f} is predicted; the mean is "
                f"{left_out.mean():.4f}."
            ),
            details={"prediction": prediction, "half_width": half, "losses": left_out.tolist()},
        ),
    ]


def _as_much(gain: Floats, by_size: Floats) -> Interval | None:
    """|ln(gain / by_size)| with its bounds; None where there is no gain to compare with."""
    if (gain <= 0).any() or (by_size <= 0).any():
        return None
    each = student(np.log(gain / by_size))
    bounds = abs(each.low), abs(each.high)
    low = 0.0 if each.low <= 0 <= each.high else min(bounds)
    return Interval(abs(each.estimate), low, max(bounds))


def predicted(counts: Sequence[int], losses: Floats) -> tuple[float, float]:
    """What the last of ``counts`` should have by the ``losses`` (sizes, seeds) of the others.

    The half-width is that of a prediction: of the fits to each seed, and of one more seed beside.
    """
    predictions = np.array([power_law(counts[:-1], each, counts[-1]) for each in losses.T])
    n = len(predictions)
    half = t_quantile((1 + LEVEL) / 2, n - 1) * float(np.std(predictions, ddof=1))
    return float(predictions.mean()), half * math.sqrt(1 + 1 / n)


def power_law(counts: Sequence[int], losses: Floats, count: int) -> float:
    """E + A·count^-a, fitted to these by least squares: a on a grid, E and A exactly for each."""
    n = np.array(counts, np.float64)
    fits = []
    for exponent in np.linspace(0.02, 1.0, 99):
        terms = np.stack((np.ones_like(n), n**-exponent), axis=1)
        solution, *_ = np.linalg.lstsq(terms, losses, rcond=None)
        residual = float(np.square(terms @ solution - losses).sum())
        fits.append((residual, float(solution[0] + solution[1] * float(count) ** -exponent)))
    return min(fits)[1]
