"""Claim 1, many parameters: how much of a model can be lost, and how few of its parameters hold most of it.

Fractions of all parameters are set to zero, those of highest |gradient * w| on the pilot's blocks first, and
beside them as many at random: the damage against the number, in a few weights or spread. Then whole
components, layers, heads and feed-forward units. What is removed together is no longer in one place: these
numbers speak of many parameters, not of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from minilm.architectures.minilm import layout as minilm_layout
from minilm.claims.one_parameter import gradients
from minilm.claims.protocol import Finding, Interval, Region, Rule
from minilm.claims.subject import Subject
from minilm.claims.tables import table
from minilm.claims.trials import Floats, first_layer, replaced
from minilm.model.transformer import Transformer
from minilm.progress import progress_bar
from minilm.render.document import Table
from minilm.render.line_chart import log_chart

FRACTION = 0.01
DRAWS = 5
UNITS = 20  # feed-forward units drawn at random

RULE = Rule(
    name="one-parameter/fraction",
    statement="the model is robust: it can lose 1% of its parameters",
    statistic="rise of the loss with 1% of all parameters, drawn at random, at zero",
    unit="nats a token",
    supported=Region(high=0.05),
    contradicted=Region(0.05),
    least=30,
    units="blocks",
)

Change = dict[str, Tensor]


class Structure(NamedTuple):
    """A part of the model, and how to set it to zero."""

    kind: str
    name: str
    parameters: int
    change: Change


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
    ranked = [_effect(subject, _zeroed(model, sizes, ranking[:k])).mean() for k in counts]
    drawn = np.array(
        [
            [
                _effect(subject, _zeroed(model, sizes, _draw(random, total, k))).mean()
                for k in counts
            ]
            for _ in range(DRAWS)
        ]
    )
    one_percent = [
        _effect(subject, _zeroed(model, sizes, _draw(random, total, round(total * FRACTION))))
        for _ in range(DRAWS)
    ]
    interval = subject.bootstrap.mean(np.mean(one_percent, axis=0))
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
    structures = list(_structures(model, subject.random(5)))
    rises = subject.bootstrap.means(
        np.stack(
            [
                _effect(subject, each.change)
                for each in progress_bar(iterable=structures, desc="structures", leave=False)
            ]
        )
    )
    return [
        Finding(
            RULE,
            interval,
            n=len(subject.blocks),
            trials=len(counts) * (1 + DRAWS) + DRAWS + len(structures),
            text=(
                f"Half of what the model knows beyond token frequencies, {half:.2f} nats a token, is lost "
                f"with {_count(by_rank, total)} ranked by gradient, and with {_count(by_chance, total)} "
                f"drawn at random."
            ),
            details={
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
            tables=(_table(structures, rises),),
            charts=() if chart is None else (chart,),
        )
    ]


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


def _effect(subject: Subject, change: Change) -> Floats:
    with replaced(subject.model, change):
        return subject.trials.effect(min(first_layer(subject.model, name) for name in change))


def _reached(counts: list[int], rises: Iterable[float], half: float) -> int | None:
    """The first number at which the rise is ``half``."""
    return next((k for k, rise in zip(counts, rises, strict=True) if rise >= half), None)


def _count(number: int | None, total: int) -> str:
    return (
        "more than half of them" if number is None else f"{number:,} ({number / total:.2g} of all)"
    )


def _structures(model: Transformer, random: np.random.Generator) -> Iterator[Structure]:
    """Each component, layer and head, and some units drawn at random."""
    for component, names in _components(model).items():
        yield _whole(model, "component", component, names)
    for block in range(len(model.blocks)):
        names = [
            name for name, _ in model.named_parameters() if name.startswith(f"blocks.{block}.")
        ]
        yield _whole(model, "layer", str(block), names)
        for head in range(model.config.num_heads):
            width = model.config.head_dim
            columns = slice(head * width, (head + 1) * width)
            name = f"blocks.{block}.attention.output.weight"
            yield _columns(model, "head", f"{block}.{head}", name, columns)
    for _ in range(UNITS):
        block = int(random.integers(len(model.blocks)))
        unit = int(random.integers(model.config.d_feed_forward))
        name = f"blocks.{block}.feed_forward.down.weight"
        yield _columns(model, "unit", f"{block}.{unit}", name, slice(unit, unit + 1))


def _components(model: Transformer) -> dict[str, list[str]]:
    own = dict(model.named_parameters())
    components: dict[str, list[str]] = {}
    for tensor in minilm_layout(model.config).named_tensors():
        if tensor.name in own:
            components.setdefault(tensor.declared.component, []).append(tensor.name)
    return components


def _whole(model: Transformer, kind: str, name: str, names: Sequence[str]) -> Structure:
    zeros = {each: torch.zeros_like(model.get_parameter(each)) for each in names}
    return Structure(kind, name, sum(zero.numel() for zero in zeros.values()), zeros)


def _columns(model: Transformer, kind: str, name: str, matrix: str, columns: slice) -> Structure:
    without = model.get_parameter(matrix).clone()
    without[:, columns] = 0
    return Structure(kind, name, without[:, columns].numel(), {matrix: without})


def _table(structures: Sequence[Structure], rises: Sequence[Interval]) -> Table:
    """Each component and layer; of heads and units the worst, the median and the least."""
    rows = []
    for kind in ("component", "layer", "head", "unit"):
        each = [pair for pair in zip(structures, rises, strict=True) if pair[0].kind == kind]
        each.sort(key=lambda pair: -pair[1].estimate)
        if kind in ("head", "unit"):
            each = [each[0], each[len(each) // 2], each[-1]]
        rows += [
            (
                f"{kind} {structure.name}",
                f"{structure.parameters:,}",
                f"{rise.estimate:.4f}",
                f"{rise.low:.4f} to {rise.high:.4f}",
                f"{1e6 * rise.estimate / structure.parameters:.3g}",
            )
            for structure, rise in each
        ]
    return table(
        "Structures set to zero",
        {
            "structure": "text",
            "parameters": "number",
            "nats": "number",
            "interval": "number",
            "nats a million": "number",
        },
        rows,
    )
