"""Claim 1, the model as a whole: no single parameter matters. In the typical case, and in the worst.

Typical: scalars drawn at random are set to zero, one at a time. Worst case, as "no" needs a search and not
a sample: candidates are ranked on the pilot's blocks by three scores, each of which finds what another may
miss, and set to zero singly on the blocks of the test.

- |gradient * w|: the first-order change of the loss (Molchanov et al. 2019, arXiv:1906.10771)
- |w| * ‖x‖: the weight times the norm of its input (Sun et al. 2023, arXiv:2306.11695)
- spikes in and out of a feed-forward-down matrix, where super weights are (Yu et al. 2024, arXiv:2411.07191)
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from minilm.claims.intervals import share
from minilm.claims.protocol import Finding, Interval, Region, Rule
from minilm.claims.subject import Subject
from minilm.claims.tables import table
from minilm.claims.trials import (
    Blocks,
    Floats,
    Scalar,
    Trials,
    first_layer,
    random_scalars,
    scalars_set,
)
from minilm.model.transformer import Transformer, next_token_loss
from minilm.progress import progress_bar
from minilm.render.line_chart import log_chart
from minilm.transforms.activations import input_norms, linear_layers

HARMFUL = 0.01  # nats a token
RANDOM_SCALARS = 600  # with none harmful, at most 5.3/600 = 0.9% are
PERTURBED = 100
CANDIDATES = 20  # of each score
PUBLISHED = "Llama-7B: one weight, perplexity 5.67 to 1211 on WikiText-2 (arXiv:2411.07191)"

TYPICAL = Rule(
    name="one-parameter/typical",
    statement="a parameter drawn at random does not matter",
    statistic=f"share of single parameters whose zero costs more than {HARMFUL} nats a token",
    unit="share",
    supported=Region(0, 0.01),
    contradicted=Region(0.01),
    least=530,
    units="parameters",
)
WORST = Rule(
    name="one-parameter/worst",
    statement="no single parameter matters",
    statistic="rise of the loss by the worst single zero found",
    unit="nats a token",
    supported=Region(high=0.05),
    contradicted=Region(math.log(2)),
    least=30,
    units="blocks",
    margin=0.05,
)
RULES = (TYPICAL, WORST)


def measure(subject: Subject) -> list[Finding]:
    """Both findings."""
    return [_typical(subject), _worst(subject)]


def _typical(subject: Subject) -> Finding:
    model, random = subject.model, subject.random(1)
    scalars = random_scalars(model, RANDOM_SCALARS, random)
    began = time.monotonic()
    zeroed = _single_zeros(subject, subject.trials, scalars, "random parameters")
    seconds = time.monotonic() - began
    intervals = subject.bootstrap.means(zeroed)
    surely = sum(each.low > HARMFUL for each in intervals)
    perhaps = sum(each.high > HARMFUL for each in intervals)
    n = len(scalars)
    interval = Interval(perhaps / n, share(surely, n).low, share(perhaps, n).high)
    perturbed = _perturbed(subject, scalars[:PERTURBED], random)
    means = zeroed.mean(axis=1)
    return Finding(
        TYPICAL,
        interval,
        n=n,
        trials=n + len(perturbed),
        text=(
            f"Of {n} parameters drawn at random and set to zero one at a time, {perhaps} may have cost "
            f"more than {HARMFUL} nats a token; the largest mean rise was {means.max():.2g}. Moved by one "
            f"standard deviation of their tensor instead, {len(perturbed)} of them cost at most "
            f"{perturbed.max():.2g}."
        ),
        details={
            "harmful": perhaps,
            "largest_rise": float(means.max()),
            "median_absolute_rise": float(np.median(np.abs(means))),
            "perturbed": len(perturbed),
            "largest_rise_perturbed": float(perturbed.max()),
            "widest_half_width": max(each.half_width for each in intervals),
        },
        seconds={f"{n} trials": seconds},
    )


def _perturbed(subject: Subject, scalars: list[Scalar], random: np.random.Generator) -> Floats:
    """The mean rise of each, moved by a standard deviation of its tensor up or down."""
    parameters = dict(subject.model.named_parameters())
    means = []
    for scalar in scalars:
        tensor = parameters[scalar.name]
        step = float(tensor.std()) * random.choice((-1, 1)) if tensor.numel() > 1 else 0.0
        value = float(tensor.view(-1)[scalar.index]) + step
        with scalars_set(subject.model, [scalar], value):
            effect = subject.trials.effect(first_layer(subject.model, scalar.name))
        means.append(effect.mean())
    return np.array(means)


def _worst(subject: Subject) -> Finding:
    model = subject.model
    by_score = candidates(model, subject.pilot, CANDIDATES)
    scalars = list(dict.fromkeys(scalar for each in by_score.values() for scalar in each))
    on_pilot = _single_zeros(subject, Trials(model, subject.pilot), scalars, "candidates")
    chosen = int(np.argmax(on_pilot.mean(axis=1)))
    effects = _single_zeros(subject, subject.trials, scalars, "candidates, tested")
    intervals = subject.bootstrap.means(effects)
    # The lower bound is of the one that the pilot chose, as the largest of many is too large by chance; the
    # upper one is of all of them.
    worst = intervals[chosen]
    interval = Interval(worst.estimate, worst.low, max(each.high for each in intervals))
    rises = {scalar: each.estimate for scalar, each in zip(scalars, intervals, strict=True)}
    beside = random_scalars(model, CANDIDATES, subject.random(2))
    at_random = _single_zeros(subject, subject.trials, beside, "random ones beside").mean(axis=1)
    curves = {name: _ranked([rises[scalar] for scalar in each]) for name, each in by_score.items()}
    curves["random"] = _ranked(at_random.tolist())
    order = sorted(range(len(scalars)), key=lambda number: -intervals[number].estimate)
    chart = log_chart("nats by rank", "rank among the candidates of a score", curves)
    return Finding(
        WORST,
        interval,
        n=len(subject.blocks),
        half_width=max(each.half_width for each in intervals),
        trials=2 * len(scalars) + len(beside),
        text=(
            f"Of {len(scalars)} candidates, {element(scalars[chosen], model)} was the worst on the pilot's "
            f"blocks; on the others its zero costs {worst.estimate:.4f} nats a token."
        ),
        details={
            "worst": element(scalars[chosen], model),
            "candidates": len(scalars),
            "largest_rise": {
                name: max(rises[scalar] for scalar in each) for name, each in by_score.items()
            }
            | {"random": float(at_random.max())},
            "published": PUBLISHED,
        },
        tables=(
            table(
                "The worst single parameters",
                {"parameter": "code", "score": "text", "nats": "number", "interval": "number"},
                (
                    (
                        element(scalars[number], model),
                        next(name for name, each in by_score.items() if scalars[number] in each),
                        f"{intervals[number].estimate:.4f}",
                        f"{intervals[number].low:.4f} to {intervals[number].high:.4f}",
                    )
                    for number in order[:10]
                ),
            ),
        ),
        charts=() if chart is None else (chart,),
    )


def _ranked(values: list[float]) -> list[tuple[float, float]]:
    return [(rank, value) for rank, value in enumerate(sorted(values, reverse=True), 1)]


def _single_zeros(subject: Subject, trials: Trials, scalars: list[Scalar], activity: str) -> Floats:
    """(k, n): the effect of each scalar's zero."""
    effects = []
    for scalar in progress_bar(iterable=scalars, desc=activity, leave=False):
        with scalars_set(subject.model, [scalar]):
            effects.append(trials.effect(first_layer(subject.model, scalar.name)))
    return np.stack(effects)


def element(scalar: Scalar, model: nn.Module) -> str:
    """Its name with its indices."""
    index = np.unravel_index(scalar.index, model.get_parameter(scalar.name).shape)
    return f"{scalar.name}[{', '.join(str(int(each)) for each in index)}]"


def candidates(model: Transformer, blocks: Blocks, count: int) -> dict[str, list[Scalar]]:
    """``count`` scalars by each score, the highest first."""
    parameters = dict(model.named_parameters())
    matrices = linear_layers(model)
    norms = input_norms(model, matrices, [blocks.tokens])
    scores = {
        "gradient": {
            name: (gradient * parameters[name]).abs()
            for name, gradient in gradients(model, blocks).items()
        },
        "weight": {
            f"{name}.weight": layer.weight.abs() * norms[name] for name, layer in matrices.items()
        },
        "spike": {
            f"{name}.weight": outputs[:, None] * inputs
            for name, (inputs, outputs) in _spikes(model, blocks).items()
        },
    }
    return {name: highest(each, count) for name, each in scores.items()}


def highest(scores: Mapping[str, Tensor], count: int) -> list[Scalar]:
    """The elements of highest score among all tensors."""
    names, sizes = list(scores), [score.numel() for score in scores.values()]
    flat = torch.cat([score.flatten() for score in scores.values()])
    places = flat.topk(min(count, len(flat))).indices.numpy()
    ends = np.cumsum(sizes)
    tensors = np.searchsorted(ends, places, side="right")
    return [
        Scalar(names[tensor], index)
        for tensor, index in zip(
            tensors.tolist(), (places - (ends - sizes)[tensors]).tolist(), strict=True
        )
    ]


def gradients(model: Transformer, blocks: Blocks) -> dict[str, Tensor]:
    """Of the mean loss, by each parameter."""
    with differentiable(model) as parameters:
        for first in range(0, len(blocks), 8):
            part = blocks.part(slice(first, first + 8))
            loss = next_token_loss(model, part.tokens, part.targets, part.positions)
            (loss * len(part.tokens) / len(blocks)).backward()  # type: ignore[no-untyped-call]
        return {name: p.grad for name, p in parameters.items() if p.grad is not None}


@contextlib.contextmanager
def differentiable(model: Transformer) -> Iterator[dict[str, nn.Parameter]]:
    """The parameters with gradients, within the block."""
    parameters = dict(model.named_parameters())
    model.requires_grad_(True)
    try:
        yield parameters
    finally:
        model.requires_grad_(False)
        for parameter in parameters.values():
            parameter.grad = None


@torch.inference_mode()
def _spikes(model: Transformer, blocks: Blocks) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each feed-forward-down matrix the largest |input| (i,) and |output| (o,) over all tokens."""
    spikes: dict[str, tuple[Tensor, Tensor]] = {}

    def observe(name: str, inputs: Tensor, outputs: Tensor) -> None:
        spikes[name] = (
            inputs.abs().flatten(0, -2).amax(0).clone(),
            outputs.abs().flatten(0, -2).amax(0).clone(),
        )

    hooks = [
        layer.register_forward_hook(lambda _, x, y, name=name: observe(name, x[0], y))
        for name, layer in linear_layers(model).items()
        if name.endswith("feed_forward.down")
    ]
    try:
        model(blocks.tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return spikes
