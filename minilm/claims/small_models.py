"""Small models that claims train on the text at hand: paired by seed, the rate of each arm chosen beforehand.

A seed gives the initial weights, the order of the text and what dropout leaves out: the same in every arm,
and others by another --seed. The learning rate is chosen on the pilot's blocks with a seed that is not among
the tested ones; losses are of the blocks of the test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minilm.claims.cells import Cells, Numbers, Recipe, train, windows
from minilm.claims.subject import Subject
from minilm.claims.trials import Trials
from minilm.config import ModelConfig
from minilm.model.transformer import Transformer, next_token_loss
from minilm.progress import progress_bar
from minilm.render.line_chart import LineChart, line_chart

RATES = (3e-3, 1e-2, 3e-2)
ROWS = 4  # of a batch
SEEDS = 6
CHOOSING = -1  # the seed that rates are chosen with
FAR = 1000  # between the seeds of dropout of one --seed and the next


@dataclass(frozen=True)
class Arm:
    """A model's ``fields``, and how it is trained: on ``tokens`` of a seed's text, in so many passes.

    ``scale`` multiplies the initial matrices.
    """

    fields: Mapping[str, Any]
    tokens: int
    passes: int = 1
    scale: float = 1.0
    recipe: Recipe = "adamw"
    settings: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        values = {"passes": self.passes, "tokens": self.tokens, "scale": self.scale}
        settings = {**values, **self.fields, "recipe": self.recipe}
        object.__setattr__(self, "settings", settings)


SHAPE = {"num_layers": 2, "d_model": 32, "num_heads": 2}
# By Muon: in so few steps AdamW leaves the token frequencies with some seeds and not with others. Over and
# over it does with all, and overfits less.
ONCE = Arm(SHAPE, tokens=2**16, recipe="muon")
REPEATED = Arm(SHAPE, tokens=2**12, passes=32)


def with_fields(arm: Arm, **fields: object) -> Arm:
    """The same arm, but for these fields of its model."""
    return replace(arm, fields={**arm.fields, **fields})


def tested_losses(subject: Subject, cells: Cells, arm: Arm) -> list[float] | None:
    """The test losses of all seeds at the chosen rate; None where trainings are missing."""
    rate = chosen_rate(subject, cells, arm)
    if rate is None:
        return None
    rows = [
        losses_of(subject, cells, arm, rate, seed)
        for seed in progress_bar(iterable=range(SEEDS), desc="small models", leave=False)
    ]
    losses = [row["test"] for row in rows if row is not None]
    return losses if len(losses) == SEEDS else None


def too_short(subject: Subject, *arms: Arm) -> str:
    """Why the text cannot be what one of the arms says it reads; empty where it can."""
    needed, tokens = max(arm.tokens for arm in arms) + 1, len(subject.text)
    if tokens >= needed:
        return ""
    return f"it trains on {needed:,} tokens of text, beside the blocks there are {tokens:,}"


def chart_by_seed(name: str, losses: Mapping[str, list[float]]) -> LineChart:
    """The arms beside each other, a point a seed."""
    series = {arm: list(enumerate(each, 1)) for arm, each in losses.items()}
    return line_chart(f"nats by seed: {name}", "seed, from 1", series)


def chosen_rate(subject: Subject, cells: Cells, arm: Arm) -> float | None:
    """The rate with the least loss on the pilot's blocks; None where trainings are missing."""
    losses = _choosing_losses(subject, cells, arm)
    return None if losses is None else min(losses, key=losses.__getitem__)


def chosen_loss(subject: Subject, cells: Cells, arm: Arm) -> float:
    """The loss at that rate, on the pilot's blocks and of a seed that is not tested; else infinite.

    Which of several arms is the best, and which the worst, is told by it: of the tested losses the largest
    difference is too large by chance.
    """
    losses = _choosing_losses(subject, cells, arm)
    return math.inf if losses is None else min(losses.values())


def _choosing_losses(subject: Subject, cells: Cells, arm: Arm) -> dict[float, float] | None:
    losses = {}
    for rate in RATES:
        numbers = losses_of(subject, cells, arm, rate, CHOOSING)
        if numbers is None:
            return None
        losses[rate] = numbers["pilot"]
    return losses


def losses_of(subject: Subject, cells: Cells, arm: Arm, rate: float, seed: int) -> Numbers | None:
    """The ``test`` and ``pilot`` loss of an arm that is trained; None where no time is left."""
    settings = {"small": dict(arm.settings), "rows": ROWS, "rate": rate, "seed": seed}
    return cells.get(settings, partial(_losses, subject, arm, rate, seed))


def _losses(subject: Subject, arm: Arm, rate: float, seed: int) -> Numbers:
    model = trained_model(subject, arm, rate, seed)
    return {
        name: float(Trials(model, blocks).base.mean())
        for name, blocks in (("test", subject.blocks), ("pilot", subject.pilot))
    }


def trained_model(subject: Subject, arm: Arm, rate: float, seed: int) -> Transformer:
    """The model of an arm, in eval mode. The text has more tokens than the arm reads (`too_short`)."""
    length = subject.blocks.tokens.shape[1]
    random = np.random.default_rng([subject.seed, seed + 1])
    assert len(subject.text) > arm.tokens, "steps are of so many tokens"
    start = int(random.integers(0, max(1, len(subject.text) - arm.tokens - 1)))
    part = np.asarray(subject.text[start : start + arm.tokens + 1]).astype(np.int64)
    text = torch.from_numpy(part)
    model = new_model(subject, arm, int(random.integers(2**31)), length)
    batches = windows(text, length, ROWS, random)

    def loss(_: int) -> Tensor:
        return next_token_loss(model, *next(batches))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((seed + 1 + subject.seed * FAR) % 2**63)  # dropout
        train(
            model.train(),
            loss,
            steps=steps_of(arm, length),
            learning_rate=rate,
            recipe=arm.recipe,
        )
    return model.eval()


def steps_of(arm: Arm, length: int) -> int:
    """How many batches of that context its passes are."""
    return arm.passes * (arm.tokens // (ROWS * length))


def new_model(subject: Subject, arm: Arm, seed: int, length: int) -> Transformer:
    """The model of an arm before it is trained."""
    config = ModelConfig(
        **{
            "vocab_size": subject.model.config.vocab_size,
            "context_length": length,
            "tied_embeddings": True,
            **arm.fields,
        }
    )
    model = Transformer(config, torch.Generator().manual_seed(seed))
    if arm.scale != 1:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(arm.scale)
    return model
