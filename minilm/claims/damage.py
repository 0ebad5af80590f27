"""Claim 1, many parameters: how much of a model can be lost, and how few of its parameters hold most of it.

Fractions of all parameters are set to zero, those of highest |gradient * w| on the pilot's blocks first, and
beside them as many at random: the damage against the number, in a few weights or spread. What 1% at random
costs depends on which 1% it is, a parameter of a norm or none: many are drawn, and draws and blocks are both
resampled. Then whole structures.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from minilm.claims.one_parameter import gradients
from minilm.claims.protocol import Finding, Region, Rule
from minilm.claims.structures import Change, effect_of, rises_of, structure_table, structures_of
from minilm.claims.subject import Subject
from minilm.claims.trials import Floats
from minilm.progress import progress_bar
from minilm.render.line_chart import log_chart

FRACTION = 0.01
DRAWS = 5  # of each number in the curve
TESTED = 60  # draws of the 1%: as many as blocks at most

RULE = Rule(
    name="one-parameter/fraction",
    statement="the model is robust: it can lose 1% of its parameters",
    statistic="mean rise of the loss with 1% of all parameters, drawn at random, at zero",
    unit="nats a token",
    supported=Region(high=0.05),
    contradicted=Region(0.05),
    least=30,
    units="blocks with draws in proportion",
    margin=0.05,
)


def measure(subject: Subject) -> list[Finding]:
    """The finding, with the curve and the table of structures."""
    model, random = subject.model, subject.random(4)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    total = sum(sizes.values())
    scores = [
        (gradient * model.get_parameter(name)).abs().flatten()
        for name, gradient in gradients(model, subject.pilot).items()
    ]
    ranking = torch.cat(scores).argsort(descending=True)
    counts = _counts(total)
    ranked = [effect_of(subject, _zeroed(model, sizes, ranking[:k])).mean() for k in counts]
    drawn = np.array(
        [
            [
                effect_of(subject, _zeroed(model, sizes, _draw(random, total, k))).mean()
                for k in counts
            ]
            for _ in range(DRAWS)
        ]
    )
    one_percent = _one_percent(subject, sizes, random)
    by_draw = one_percent.mean(axis=1)
    half = subject.advantage.estimate / 2
    by_rank, by_chance = _reached(counts, ranked, half), _reached(counts, drawn.mean(axis=0), half)
    chart = log_chart(
        "nats by parameters set to zero",
        "parameters",
        {
            "ranked by gradient": list(zip(counts, map(float, ranked), strict=True)),
            "random, mean": list(zip(counts, map(float, drawn.mean(axis=0)), strict=True)),
            "random, least": list(zip(counts, map(float, drawn.min(axis=0)), strict=True)),
            "random, most": list(zip(counts, map(float, drawn.max(axis=0)), strict=True)),
        },
    )
    structures = list(structures_of(model, subject.random(5)))
    rises = rises_of(subject, (each.change for each in structures), "structures")
    return [
        Finding(
            RULE,
            subject.bootstrap.mean_of_draws(one_percent),
            n=len(subject.blocks),
            trials=len(counts) * (1 + DRAWS) + TESTED + len(structures),
            text=(
                f"Of {TESTED} draws of 1% the least costs {by_draw.min():.4f} nats a token and the most "
                f"{by_draw.max():.4f}, with a standard deviation of {by_draw.std(ddof=1):.4f}; the interval "
                "is over draws and blocks. "
                f"Half of what the model knows beyond token frequencies, {half:.2f} nats a token, is lost "
                f"with {_count(by_rank, total)} ranked by gradient, and with {_count(by_chance, total)} "
                f"drawn at random."
            ),
            details={
                "one_percent": by_draw.tolist(),
                "counts": counts,
                "ranked": [float(each) for each in ranked],
                "random": drawn.tolist(),
                "half": {"nats": half, "ranked": by_rank, "random": by_chance},
                "structures": [
                    {"kind": each.kind, "name": each.name, "parameters": each.parameters}
                    | {"nats": rise.estimate, "low": rise.low, "high": rise.high}
                    for each, rise in zip(structures, rises, strict=True)
                ],
            },
            tables=(structure_table(structures, rises),),
            charts=() if chart is None else (chart,),
        )
    ]


def _one_percent(subject: Subject, sizes: dict[str, int], random: np.random.Generator) -> Floats:
    """(draws, n): what each draw of `FRACTION` of all parameters costs."""
    total = sum(sizes.values())
    effects = []
    for _ in progress_bar(iterable=range(TESTED), desc="1% at random", leave=False):
        places = _draw(random, total, round(total * FRACTION))
        effects.append(effect_of(subject, _zeroed(subject.model, sizes, places)))
    return np.stack(effects)


def _counts(total: int) -> list[int]:
    """1, 3, 10, 30, ... up to half of all."""
    numbers = [digit * 10**power for power in range(12) for digit in (1, 3)]
    return [number for number in numbers if number <= total // 2]


def _draw(random: np.random.Generator, total: int, count: int) -> Tensor:
    return torch.from_numpy(random.choice(total, size=count, replace=False))


def _zeroed(model: nn.Module, sizes: dict[str, int], places: Tensor) -> Change:
    """The parameters with zeros at ``places`` of all of them, in order."""
    mask = torch.zeros(sum(sizes.values()), dtype=torch.bool)
    mask[places] = True
    parts = zip(sizes, torch.split(mask, list(sizes.values())), strict=True)
    return {
        name: model.get_parameter(name).masked_fill(part.view_as(model.get_parameter(name)), 0)
        for name, part in parts
        if part.any()
    }


def _reached(counts: list[int], rises: Iterable[float], half: float) -> int | None:
    """The first number at which the rise is ``half``."""
    return next((k for k, rise in zip(counts, rises, strict=True) if rise >= half), None)


def _count(number: int | None, total: int) -> str:
    return (
        "more than half of them" if number is None else f"{number:,} ({number / total:.2g} of all)"
    )
