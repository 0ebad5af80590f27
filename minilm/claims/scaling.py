"""Claim 3: more parameters make a model more capable, and data and recipe matter as much.

A ladder of sizes of one family, each on three amounts of text, with the rate chosen for each cell on
other blocks. *Size*: the slope of the loss on ln N. *Data* and *recipe*: what four times the text, and the
better of the recipes listed in `RECIPES`, gain beside four times the parameters: as much is between half and
twice, which is decided on differences. *Twice*: the better recipe at N against the ladder's at 2N.
*Prediction*: a power law E + A·N^-a of the ladder must give the loss of a larger size. N counts the table
once; the head is tied.
Besides the same text for all, each size has tokens in proportion to its parameters, as Hoffmann et al. 2022
(arXiv:2203.15556) find optimal, though far fewer than their 20 a parameter. Shapes: k sizes, s seeds.
"""

from __future__ import annotations

import math

import numpy as np

from minilm.claims.cells import OVER_BUDGET, RECIPES, Cells
from minilm.claims.intervals import student
from minilm.claims.ladder import TOKENS, Ladder, longest_arm, trained_ladder
from minilm.claims.power_law import LAW_LEVEL, bootstrapped, bounds, fit, predicted
from minilm.claims.protocol import Finding, Interval, Region, Rule, not_run
from minilm.claims.small_models import SEEDS, too_short
from minilm.claims.subject import Subject
from minilm.claims.tables import table
from minilm.claims.trials import Floats
from minilm.render.line_chart import LineChart, line_chart

OPTIMAL = 20  # tokens a parameter, about (Hoffmann et al. 2022)
MOST_WORTH = 20.0  # of the logarithm of so many times the parameters


def _rule(
    name: str, statement: str, statistic: str, unit: str, supported: Region, contradicted: Region
) -> Rule:
    return Rule(
        f"scaling/{name}", statement, statistic, unit, supported, contradicted,
        least=SEEDS, units="seeds",
    )  # fmt: skip


AS_MUCH = Region(low=0), Region(high=0)
SIZE = _rule(
    "size",
    "more parameters, more capable",
    "slope of the loss on ln N",
    "nats a token",
    Region(high=0),
    Region(0),
)
DATA = _rule(
    "data",
    "data matter as much as parameters",
    "the gain by 4 times the text less half of that by 4 times the parameters, or twice that less it: the "
    "smaller one",
    "nats a token",
    *AS_MUCH,
)
RECIPE = _rule(
    "recipe",
    "the recipe matters as much as parameters",
    "the worst less the best of the recipes less half of the gain by 4 times the parameters, or twice that "
    "gain less it: the smaller one",
    "nats a token",
    *AS_MUCH,
)
TWICE = _rule(
    "twice",
    "a better recipe beats a model of twice the parameters",
    "loss of N parameters by Muon less that of 2N by AdamW, the mean over the sizes",
    "nats a token",
    Region(high=0),
    Region(0),
)
PREDICTION = _rule(
    "prediction",
    "a power law gives the loss of a larger size",
    "share of the seeds whose loss lies in the interval that smaller sizes and other seeds give",
    "of the seeds",
    Region(low=0.8),
    Region(high=0.5),
)
RULES = (SIZE, DATA, RECIPE, TWICE, PREDICTION)
PUBLISHED = (
    "parameters grow with compute as C^0.73 (Kaplan et al. 2020, arXiv:2001.08361), C^0.50 (Hoffmann et al. "
    "2022, arXiv:2203.15556)"
)


def measure(subject: Subject, cells: Cells) -> list[Finding]:
    """All findings, or that the text is too short, or that trainings are missing."""
    if reason := too_short(subject, longest_arm()):
        return [not_run(rule, reason) for rule in RULES]
    ladder = trained_ladder(subject, cells)
    if ladder is None:
        return [not_run(rule, OVER_BUDGET) for rule in RULES]
    return findings(ladder, subject.random(3))


def findings(ladder: Ladder, random: np.random.Generator) -> list[Finding]:
    """Of a ladder, wherever its losses are from."""
    sizes = np.array(ladder.counts, np.float64)
    slopes = np.polyfit(np.log(sizes), ladder.losses[-1], 1)[0]
    by_size = -slopes * math.log(4)
    return [
        _size(ladder, sizes, slopes, random),
        _data(ladder, by_size),
        _recipe(ladder, by_size),
        _twice(ladder, sizes),
        _prediction(ladder, sizes, random),
    ]


def _size(ladder: Ladder, sizes: Floats, slopes: Floats, random: np.random.Generator) -> Finding:
    most = ladder.losses[-1]
    columns = ["parameters", *(f"{tokens:,} tokens" for tokens in TOKENS), "tokens in proportion"]
    optimal_slope = float(np.polyfit(np.log(sizes), ladder.proportional, 1)[0].mean())
    return Finding(
        SIZE,
        student(slopes),
        n=len(slopes),
        trials=ladder.losses.size + ladder.proportional.size,
        text=(
            f"Four times the parameters gain {-slopes.mean() * math.log(4):.4f} nats on the same text, and "
            f"{-optimal_slope * math.log(4):.4f} with four times the text beside them. The law on the same "
            f"text: {_law_text(sizes, most, random)}; with tokens in proportion: "
            f"{_law_text(sizes, ladder.proportional, random)}. That proportion, "
            f"{ladder.tokens[-1] / ladder.counts[-1]:.2g} tokens a parameter, is how they should grow; "
            f"optimal would be some {OPTIMAL}. Published: {PUBLISHED}."
        ),
        details={
            "parameters": [*ladder.counts, ladder.larger],
            "losses": ladder.losses.tolist(),
            "tokens_in_proportion": list(ladder.tokens),
            "losses_in_proportion": ladder.proportional.tolist(),
        },
        tables=(
            table(
                "Loss by size and text",
                dict.fromkeys(columns, "number"),
                (
                    (
                        f"{count:,}",
                        *(f"{each.mean():.4f}" for each in ladder.losses[:, number]),
                        f"{ladder.proportional[number].mean():.4f} on {ladder.tokens[number]:,}",
                    )
                    for number, count in enumerate(ladder.counts)
                ),
            ),
        ),
        charts=_chart(
            "nats by parameters",
            sizes,
            {
                f"{tokens:,} tokens": each.mean(axis=1)
                for tokens, each in zip(TOKENS, ladder.losses, strict=True)
            }
            | {"tokens in proportion": ladder.proportional.mean(axis=1)},
        ),
    )


def _law_text(sizes: Floats, losses: Floats, random: np.random.Generator) -> str:
    law = fit(sizes, losses.mean(axis=1))
    low, high = bounds(bootstrapped(sizes, losses, random).exponent)
    return (
        f"{law.floor:.2f} + {law.scale:.3g} N^-{law.exponent:.2f}, the exponent between {low:.2f} and "
        f"{high:.2f} in {LAW_LEVEL:.0%} of the bootstraps"
    )


def _chart(title: str, sizes: Floats, losses: dict[str, Floats]) -> tuple[LineChart, ...]:
    lines = {
        name: list(zip(sizes.tolist(), each.tolist(), strict=False))
        for name, each in losses.items()
    }
    return (line_chart(title, "parameters", lines),)


def _data(ladder: Ladder, by_size: Floats) -> Finding:
    gain = (ladder.losses[0] - ladder.losses[-1]).mean(axis=0)
    gain *= math.log(4) / math.log(TOKENS[-1] / TOKENS[0])
    return Finding(
        DATA,
        _as_much(gain, by_size),
        n=len(gain),
        text=(
            f"Four times the text gains {_in_words(gain)} nats, four times the parameters "
            f"{_in_words(by_size)}."
        ),
        details={"gain": gain.tolist(), "gain_by_parameters": by_size.tolist()},
    )


def _recipe(ladder: Ladder, by_size: Floats) -> Finding:
    means = {name: float(losses.mean()) for name, losses in ladder.recipes.items()}
    best, *_, worst = sorted(ladder.pilot, key=ladder.pilot.__getitem__)
    spread = ladder.recipes[worst] - ladder.recipes[best]
    worth = math.exp(
        min(float(spread.mean() / max(by_size.mean(), 1e-9)) * math.log(4), MOST_WORTH)
    )
    return Finding(
        RECIPE,
        _as_much(spread, by_size),
        n=len(spread),
        text=(
            f"Between the best and the worst recipe, which the pilot's blocks and another seed tell, are "
            f"{spread.mean():.4f} nats, as between models one of which has {worth:.3g} times the parameters."
        ),
        details={name: losses.tolist() for name, losses in ladder.recipes.items()},
        tables=(
            table(
                "Recipes, each at its own best rate",
                {"recipe": "text", "loss": "number"},
                ((RECIPES[name], f"{mean:.4f}") for name, mean in means.items()),
            ),
        ),
    )


def _twice(ladder: Ladder, sizes: Floats) -> Finding:
    """The ladder's losses at twice the size are interpolated on ln N, seed by seed."""
    x = np.log([*sizes, ladder.larger])
    y = np.concatenate((ladder.losses[-1], ladder.left_out[None]))
    small = sizes[: len(ladder.other)]
    doubled = np.stack([np.interp(np.log(2 * small), x, of_seed) for of_seed in y.T], axis=1)
    differences = ladder.other - doubled  # sizes s
    each = [student(row) for row in differences]
    beaten = [f"{size:,.0f}" for size, row in zip(small, each, strict=True) if row.high < 0]
    return Finding(
        TWICE,
        student(differences.mean(axis=0)),
        n=differences.shape[1],
        trials=ladder.other.size,
        text=(
            f"Muon beats AdamW with twice the parameters at {', '.join(beaten)} parameters."
            if beaten
            else "At no size Muon beats AdamW with twice the parameters."
        ),
        details={"sizes": small.tolist(), "differences": differences.tolist()},
        tables=(
            table(
                "A better recipe against twice the parameters",
                {
                    "parameters": "number",
                    "Muon": "number",
                    "AdamW, twice as many": "number",
                    "difference": "number",
                },
                (
                    (
                        f"{size:,.0f}",
                        f"{mine.mean():.4f}",
                        f"{twice.mean():.4f}",
                        f"{row.estimate:.4f} [{row.low:.4f}, {row.high:.4f}]",
                    )
                    for size, mine, twice, row in zip(
                        small, ladder.other, doubled, each, strict=True
                    )
                ),
            ),
        ),
        charts=_chart(
            "nats by parameters and recipe",
            np.exp(x),
            {"AdamW": y.mean(axis=1), "Muon": ladder.other.mean(axis=1)},
        ),
    )


def _prediction(ladder: Ladder, sizes: Floats, random: np.random.Generator) -> Finding:
    """Each seed's loss of the larger size, from the smaller sizes: its own, and those of all other seeds.

    A prediction says something where its interval leaves out what the seed reached with the last of them.
    """
    most = ladder.losses[-1]
    intervals = [
        predicted(sizes, np.delete(most, seed, axis=1), most[:, seed], ladder.larger, random)
        for seed in range(most.shape[1])
    ]
    rows = list(zip(intervals, ladder.left_out.tolist(), strict=True))
    inside = sum(each.low <= loss <= each.high for each, loss in rows)
    blunt = sum(
        each.low <= loss <= each.high for each, loss in zip(intervals, most[-1], strict=True)
    )
    says_nothing = blunt > len(rows) / 2
    return Finding(
        PREDICTION,
        None if says_nothing else Interval.exact(inside / len(rows)),
        n=len(rows),
        reason=(
            f"in {blunt} of {len(rows)} seeds the interval has the loss of the last smaller size too: that a "
            "larger one gains nothing would be predicted as well"
            if says_nothing
            else ""
        ),
        trials=len(rows),
        text=(
            f"Of {ladder.larger:,} parameters, in {inside} of {len(rows)} seeds the loss is in the "
            f"{LAW_LEVEL:.0%} interval of the smaller sizes; the mean is {ladder.left_out.mean():.4f}."
        ),
        details={
            "predicted": [[each.estimate, each.low, each.high] for each in intervals],
            "losses": ladder.left_out.tolist(),
        },
        tables=(
            table(
                f"The size that was left out, {ladder.larger:,} parameters",
                {"seed": "number", "predicted": "number", "measured": "number"},
                (
                    (
                        f"{seed}",
                        f"{each.estimate:.4f} [{each.low:.4f}, {each.high:.4f}]",
                        f"{loss:.4f}",
                    )
                    for seed, (each, loss) in enumerate(rows)
                ),
            ),
        ),
    )


def _as_much(gain: Floats, by_size: Floats) -> Interval:
    """Whether the gain lies between half and twice that by size: the smaller of its two distances, (s,) each.

    Both differences are means over seeds whatever the signs of the gains are, where a ratio has no interval
    if what it divides by may be zero. That the ratio is at least a half, or at most two, Fieller 1954 ("Some
    Problems in Interval Estimation", Journal of the Royal Statistical Society B 16) decides on the same.
    """
    each = [student(gain - by_size / 2), student(2 * by_size - gain)]
    return Interval(*(min(getattr(e, name) for e in each) for name in ("estimate", "low", "high")))


def _in_words(values: Floats) -> str:
    each = student(values)
    return f"{each.estimate:.4f} [{each.low:.4f}, {each.high:.4f}]"
