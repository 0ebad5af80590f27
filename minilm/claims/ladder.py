"""A ladder of sizes of one family, trained on several amounts of text and by several recipes.

Each arm is at the rate that is best on other blocks. N counts the table once; the head is tied. Shapes: k
sizes, s seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minilm.architectures.minilm import layout as minilm_layout
from minilm.claims.cells import RECIPES, Cells, Recipe
from minilm.claims.small_models import (
    ROWS,
    SEEDS,
    Arm,
    chosen_loss,
    chosen_rate,
    losses_of,
    new_model,
)
from minilm.claims.subject import Subject
from minilm.claims.trials import Floats
from minilm.progress import progress_bar

SIZES = ((16, 1), (24, 2), (32, 2), (48, 3), (64, 3), (80, 3))  # width, layers
LEFT_OUT = (128, 4)
OTHER_SIZES = SIZES[:5]  # of the other recipe: twice their parameters are within the ladder
OTHER: Recipe = "muon"
TOKENS = (2**14, 2**15, 2**16)
RECIPE_SIZE = 3  # of `SIZES`


@dataclass(frozen=True)
class Ladder:
    """What was trained: the losses of the test.

    ``counts`` are the parameters (k,), ``losses`` (texts, k, s); ``proportional`` (k, s) are those on
    ``tokens``, in proportion to the parameters. ``left_out`` (s,) is of ``larger`` parameters. ``recipes``
    are of one size (s,), and ``pilot`` theirs on other blocks, of a seed that is not tested; ``other`` of
    `OTHER` for the smallest sizes (fewer than k, s).
    """

    counts: Sequence[int]
    losses: Floats
    tokens: Sequence[int]
    proportional: Floats
    larger: int
    left_out: Floats
    recipes: dict[Recipe, Floats]
    pilot: dict[Recipe, float]
    other: Floats


def trained_ladder(subject: Subject, cells: Cells) -> Ladder | None:
    """Train what is missing of it; None where the budget ends before."""
    length = subject.blocks.tokens.shape[1]
    counts = [count_of(subject, size, length) for size in SIZES]
    tokens = [max(ROWS * length, TOKENS[-1] * count // counts[-1]) for count in counts]
    full = [arm_of(size, TOKENS[-1]) for size in SIZES]
    # Each arm, and that whose rate it takes.
    arms = [(arm, arm) for text in TOKENS for arm in (arm_of(size, text) for size in SIZES)]
    arms += [
        (arm_of(size, text), rated) for size, text, rated in zip(SIZES, tokens, full, strict=True)
    ]
    arms.append((arm_of(LEFT_OUT, TOKENS[-1]), full[-1]))
    of_recipes = [replace(full[RECIPE_SIZE], recipe=recipe) for recipe in RECIPES]
    others = [replace(arm_of(size, TOKENS[-1]), recipe=OTHER) for size in OTHER_SIZES]
    arms += [(arm, arm) for arm in (*of_recipes, *others)]
    rows = []
    for arm, rated in progress_bar(iterable=arms, desc="ladder", leave=False):
        losses = _losses(subject, cells, arm, rated)
        if losses is None:
            return None
        rows.append(losses)
    k, texts, array = len(SIZES), len(TOKENS), np.array(rows)
    ends = np.cumsum([texts * k, k, 1, len(RECIPES)])
    same, proportional, left_out, recipes, other = np.split(array, ends)
    return Ladder(
        counts=counts,
        losses=same.reshape(texts, k, -1),
        tokens=tokens,
        proportional=proportional,
        larger=count_of(subject, LEFT_OUT, length),
        left_out=left_out[0],
        recipes=dict(zip(RECIPES, recipes, strict=True)),
        pilot={arm.recipe: chosen_loss(subject, cells, arm) for arm in of_recipes},
        other=other,
    )


def arm_of(size: tuple[int, int], tokens: int) -> Arm:
    """The model of one rung on so much text, read once."""
    width, layers = size
    fields = {"d_model": width, "num_layers": layers, "num_heads": max(1, width // 16)}
    return Arm(fields, tokens=tokens)


def longest_arm() -> Arm:
    """The one that reads most."""
    return arm_of(LEFT_OUT, TOKENS[-1])


def count_of(subject: Subject, size: tuple[int, int], length: int) -> int:
    """Parameters by the ledger."""
    return minilm_layout(new_model(subject, arm_of(size, 1), 0, length).config).count()


def _losses(subject: Subject, cells: Cells, arm: Arm, rated: Arm) -> list[float] | None:
    """The loss of each seed at the rate that is best for ``rated``."""
    rate = chosen_rate(subject, cells, rated)
    if rate is None:
        return None
    rows = [losses_of(subject, cells, arm, rate, seed) for seed in range(SEEDS)]
    losses = [row["test"] for row in rows if row is not None]
    return losses if len(losses) == SEEDS else None
