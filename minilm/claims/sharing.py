"""Claim 6, its last part: sharing saves and costs little.

The bytes are arithmetic. For the quality small models are trained from the start, with the shared parameters
and with all of their own, paired by seed, the rate tuned in each arm.
"""

from __future__ import annotations

import numpy as np

from minilm.architectures.minilm import layout as minilm_layout
from minilm.claims.cells import OVER_BUDGET, Cells
from minilm.claims.compression import MARGIN
from minilm.claims.intervals import student
from minilm.claims.protocol import Finding, Region, Rule, not_run
from minilm.claims.small_models import (
    ONCE,
    SEEDS,
    Arm,
    chart_by_seed,
    new_model,
    tested_losses,
    too_short,
    with_fields,
)
from minilm.claims.subject import Subject


def _rule(name: str, statement: str, statistic: str) -> Rule:
    return Rule(
        f"sharing/{name}", statement, statistic, "nats a token",
        Region(high=MARGIN), Region(MARGIN), least=SEEDS, units="seeds", margin=MARGIN,
    )  # fmt: skip


BLOCKS = _rule(
    "blocks",
    "two blocks that four layers share cost little",
    "loss of four layers on two blocks less that on four",
)
HEAD = _rule(
    "head",
    "a head tied to the token embedding costs little",
    "loss with a tied head less that with one of its own",
)
RULES = (BLOCKS, HEAD)

OWN = with_fields(ONCE, num_layers=4)
SHARED = with_fields(OWN, shared_layers=2)
UNTIED = with_fields(OWN, tied_embeddings=False)


def measure(subject: Subject, cells: Cells) -> list[Finding]:
    """Both findings; what the budget does not reach is not run."""
    return [
        _cost(subject, cells, BLOCKS, SHARED, OWN),
        _cost(subject, cells, HEAD, OWN, UNTIED),
    ]


def _cost(subject: Subject, cells: Cells, rule: Rule, shared: Arm, own: Arm) -> Finding:
    if reason := too_short(subject, shared, own):
        return not_run(rule, reason)
    losses, others = (tested_losses(subject, cells, arm) for arm in (shared, own))
    if losses is None or others is None:
        return not_run(rule, OVER_BUDGET)
    count, of_own = (_parameters(subject, arm) for arm in (shared, own))
    return Finding(
        rule,
        student(np.array(losses) - np.array(others)),
        n=SEEDS,
        trials=2 * SEEDS,
        text=(
            f"Shared {count:,} parameters and {np.mean(losses):.4f} nats a token, else {of_own:,} and "
            f"{np.mean(others):.4f}: {1 - count / of_own:.0%} of them are saved."
        ),
        details={"parameters": [count, of_own], "shared": losses, "own": others},
        charts=(chart_by_seed(rule.name.partition("/")[2], {"shared": losses, "own": others}),),
    )


def _parameters(subject: Subject, arm: Arm) -> int:
    model = new_model(subject, arm, seed=0, length=subject.blocks.tokens.shape[1])
    return minilm_layout(model.config).count()
