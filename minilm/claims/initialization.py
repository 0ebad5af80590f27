"""Claim 8: initial values matter, biases help, dropout prevents co-adaptation.

Small models on the text at hand, each difference paired by seed, the rate tuned in each arm, on the text
once and over and over. That dropout lowers the loss and that it lowers co-adaptation are two claims. Co-
adaptation of hidden units: how far the damage without two of them is from the sum of the damages without
each, mean |D(i,j) - D(i) - D(j)| / mean |D(i)|.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import numpy as np

from minilm.claims.cells import OVER_BUDGET, Cells, Numbers
from minilm.claims.intervals import student
from minilm.claims.protocol import FEWEST_BLOCKS, Finding, Region, Rule, not_run
from minilm.claims.small_models import (
    ONCE,
    REPEATED,
    ROWS,
    SEEDS,
    Arm,
    chart_by_seed,
    chosen_loss,
    chosen_rate,
    tested_losses,
    too_short,
    trained_model,
    with_fields,
)
from minilm.claims.subject import Subject, evenly
from minilm.claims.tables import table
from minilm.claims.trials import Trials, replaced
from minilm.model.transformer import Transformer
from minilm.render.line_chart import line_chart

SCALES = (0.25, 1.0, 4.0)  # of the initial matrices, around the recipe's own
DROPOUT = 0.1
PAIRS = 200
BIASES = ("qkv_bias", "attention_output_bias", "feed_forward_bias", "norm_bias")


def _rule(
    name: str, statement: str, statistic: str, supported: Region, contradicted: Region
) -> Rule:
    return Rule(
        f"initialization/{name}", statement, statistic, "nats a token",
        supported, contradicted, least=SEEDS, units="seeds", margin=0.01,
    )  # fmt: skip


SCALE = _rule(
    "scale",
    "initial values matter",
    f"loss of the worst less the best of the initial scales {', '.join(map(str, SCALES))}",
    Region(low=0.05),
    Region(high=0.01),
)
BIAS = _rule(
    "biases",
    "biases help",
    "loss without biases less that with",
    Region(low=0.01),
    Region(high=0.01),
)
SINGLE = _rule(
    "dropout-once",
    "dropout helps on a text that is read once",
    "loss without dropout less that with",
    Region(low=0.01),
    Region(high=0.01),
)
MANY = _rule(
    "dropout-repeated",
    "dropout helps on a text that is read again and again",
    "loss without dropout less that with",
    Region(low=0.01),
    Region(high=0.01),
)
ADAPTATION = replace(
    _rule(
        "co-adaptation",
        "dropout prevents co-adaptation",
        "how much less co-adaptation hidden units have with dropout, relative to that without",
        Region(low=0.1),
        Region(high=0),
    ),
    unit="of that without",
    margin=0.1,
)
RULES = (SCALE, BIAS, SINGLE, MANY, ADAPTATION)
PUBLISHED = "single-epoch Pythia is better without dropout (arXiv:2505.24788)"


def measure(subject: Subject, cells: Cells) -> list[Finding]:
    """All findings; those whose trainings the budget does not reach are not run."""
    return [
        _scale(subject, cells),
        _difference(subject, cells, BIAS, ONCE, with_fields(ONCE, **dict.fromkeys(BIASES, False))),
        _difference(subject, cells, SINGLE, with_fields(ONCE, dropout=DROPOUT), ONCE),
        _difference(subject, cells, MANY, with_fields(REPEATED, dropout=DROPOUT), REPEATED),
        _adaptation(subject, cells),
    ]


def _scale(subject: Subject, cells: Cells) -> Finding:
    if reason := too_short(subject, ONCE):
        return not_run(SCALE, reason)
    arms = {scale: tested_losses(subject, cells, replace(ONCE, scale=scale)) for scale in SCALES}
    on_pilot = {scale: chosen_loss(subject, cells, replace(ONCE, scale=scale)) for scale in SCALES}
    losses = {scale: each for scale, each in arms.items() if each is not None}
    if len(losses) < len(arms):
        return not_run(SCALE, OVER_BUDGET)
    means = {scale: float(np.mean(each)) for scale, each in losses.items()}
    best, *_, worst = sorted(on_pilot, key=on_pilot.__getitem__)
    differences = {
        (one, other): student(np.array(losses[one]) - np.array(losses[other]))
        for one, other in itertools.permutations(SCALES, 2)
    }
    # The lower bound is of the pair that the pilot chose, as the largest of several is too large by chance;
    # the upper one is of all of them.
    chosen = differences[worst, best]
    return Finding(
        SCALE,
        replace(chosen, high=max(each.high for each in differences.values())),
        n=SEEDS,
        trials=len(SCALES) * SEEDS,
        text=f"On the pilot's blocks, of another seed, the best scale is {best:g}, the worst {worst:g}.",
        details={"losses": {str(scale): each for scale, each in losses.items()}},
        tables=(
            table(
                "Initial matrices times a scale",
                {"scale": "number", "loss": "number"},
                ((f"{scale:g}", f"{mean:.4f}") for scale, mean in means.items()),
            ),
        ),
        charts=(
            chart_by_seed(
                "initial values", {f"times {scale:g}": each for scale, each in losses.items()}
            ),
        ),
    )


def _difference(subject: Subject, cells: Cells, rule: Rule, arm: Arm, without: Arm) -> Finding:
    """Loss without what the rule is of, less that with it."""
    if reason := too_short(subject, arm, without):
        return not_run(rule, reason)
    losses, others = tested_losses(subject, cells, arm), tested_losses(subject, cells, without)
    if losses is None or others is None:
        return not_run(rule, OVER_BUDGET)
    return Finding(
        rule,
        student(np.array(others) - np.array(losses)),
        n=SEEDS,
        trials=2 * SEEDS,
        text=(
            f"With {np.mean(losses):.4f}, without {np.mean(others):.4f} nats a token."
            + (f" Published: {PUBLISHED}." if rule is SINGLE else "")
        ),
        details={"with": losses, "without": others},
        charts=(chart_by_seed(rule.name.partition("/")[2], {"with": losses, "without": others}),),
    )


def _adaptation(subject: Subject, cells: Cells) -> Finding:
    if reason := too_short(subject, REPEATED):
        return not_run(ADAPTATION, reason)
    values: dict[float, list[float]] = {}
    for dropout in (0.0, DROPOUT):
        arm = with_fields(REPEATED, dropout=dropout)
        rate = chosen_rate(subject, cells, arm)
        if rate is None:
            return not_run(ADAPTATION, OVER_BUDGET)
        settings = {"claim": "co-adaptation", "pairs": PAIRS, "rows": ROWS, "rate": rate}
        settings |= {"arm": dict(arm.settings)}
        rows = [
            cells.get({**settings, "seed": seed}, partial(_co_adapted, subject, arm, rate, seed))
            for seed in range(SEEDS)
        ]
        values[dropout] = [row["co-adaptation"] for row in rows if row is not None]
    without, dropped = (np.array(each) for each in values.values())
    if len(without) < SEEDS or len(dropped) < SEEDS:
        return not_run(ADAPTATION, OVER_BUDGET)
    return Finding(
        ADAPTATION,
        student(1 - dropped / without),
        n=SEEDS,
        trials=2 * SEEDS * 3 * PAIRS,
        text=f"With {dropped.mean():.3f}, without {without.mean():.3f}.",
        details={"with": dropped.tolist(), "without": without.tolist()},
        charts=(
            line_chart(
                "co-adaptation by seed",
                "seed, from 1",
                {
                    name: list(enumerate(each.tolist(), 1))
                    for name, each in (("with dropout", dropped), ("without", without))
                },
            ),
        ),
    )


def _co_adapted(subject: Subject, arm: Arm, rate: float, seed: int) -> Numbers:
    model = trained_model(subject, arm, rate, seed)
    blocks = evenly(subject.pilot, FEWEST_BLOCKS)
    random = np.random.default_rng([seed, subject.seed])
    return {"co-adaptation": co_adaptation(Trials(model, blocks), random)}


def co_adaptation(trials: Trials, random: np.random.Generator) -> float:
    """Of `PAIRS` pairs of hidden units of a layer, drawn at random."""
    model = trials.model
    apart, single = [], []
    for _ in range(PAIRS):
        block = int(random.integers(len(model.blocks)))
        pair = random.choice(model.config.d_feed_forward, 2, replace=False).tolist()
        one, other, both = (
            _without(trials, model, block, units) for units in (pair[:1], pair[1:], pair)
        )
        apart.append(abs(both - one - other))
        single += [abs(one), abs(other)]
    return float(np.mean(apart) / max(np.mean(single), 1e-12))


def _without(trials: Trials, model: Transformer, block: int, units: list[int]) -> float:
    name = f"blocks.{block}.feed_forward.down.weight"
    matrix = model.get_parameter(name).detach().clone()
    matrix[:, units] = 0
    with replaced(model, {name: matrix}):
        return float(trials.effect(model.config.block_order.index(block)).mean())
