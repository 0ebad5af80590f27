"""Claim 6: quantization loses little, pruning removes what is redundant.

Paired losses of the same blocks, before and after. The matrices of the blocks are rounded to the nearest
code in 8 and in 4 bits, and the smallest of their weights set to zero, against as many at random: what
is redundant is what a magnitude finds and chance does not.
"""

from __future__ import annotations

import numpy as np
import torch

from minilm.architectures.minilm import layout as minilm_layout
from minilm.claims.protocol import Finding, Interval, Region, Rule, not_run
from minilm.claims.subject import Subject
from minilm.claims.tables import table
from minilm.claims.trials import Floats, replaced, rounded_matrices
from minilm.dtypes import storage_bytes
from minilm.errors import InputError
from minilm.progress import progress_bar
from minilm.quantization.packing import Packing, quantized_matrices
from minilm.quantization.packings import make_packing
from minilm.render.line_chart import line_chart
from minilm.transforms.activations import linear_layers
from minilm.transforms.prune import Masks, global_masks, scores

MARGIN = 0.05  # nats a token
REDUNDANT = 0.3  # of the weights
SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
GROUPS = (32, 64, 128)  # inputs that share a scale in int4
PUBLISHED = (
    "OPT-125M on WikiText-2, perplexity 27.65: 4-bit nearest 37.28, that is +0.299 nats, in groups of 128 "
    "30.48 (Frantar et al. 2022, arXiv:2210.17323)"
)

EIGHT_BITS = Rule(
    name="compression/8-bit",
    statement="8 bits lose nothing",
    statistic="rise of the loss with the matrices of the blocks in int8",
    unit="nats a token",
    supported=Region(high=0.01),
    contradicted=Region(0.01),
    least=30,
    units="blocks",
    margin=0.01,
)
FOUR_BITS = Rule(
    name="compression/4-bit",
    statement="4 bits lose little",
    statistic="rise of the loss with the matrices of the blocks in int4, groups of 32, to nearest",
    unit="nats a token",
    supported=Region(high=MARGIN),
    contradicted=Region(MARGIN),
    least=30,
    units="blocks",
    margin=MARGIN,
)
PRUNING = Rule(
    name="compression/pruning",
    statement="pruning removes what is redundant",
    statistic=(
        f"largest share of the smallest weights that costs at most {MARGIN} nats a token and less than as "
        "many at random"
    ),
    unit="of the matrices' weights",
    supported=Region(low=REDUNDANT),
    contradicted=Region(high=0.1),
    least=30,
    units="blocks",
)
RULES = (EIGHT_BITS, FOUR_BITS, PRUNING)


def measure(subject: Subject) -> list[Finding]:
    """All three findings."""
    return [
        _quantized(subject, EIGHT_BITS),
        _quantized(subject, FOUR_BITS),
        _pruned(subject),
    ]


def _quantized(subject: Subject, rule: Rule) -> Finding:
    packing = make_packing("int8" if rule is EIGHT_BITS else "int4")
    try:
        interval = subject.bootstrap.mean(_rounded(subject, packing))
    except InputError as error:
        return not_run(rule, str(error))
    n = len(subject.blocks)
    if rule is EIGHT_BITS:
        return Finding(rule, interval, n=n, trials=1)
    layout = minilm_layout(subject.model.config)
    rows = []
    for name, each in _packings(subject).items():
        rise = subject.bootstrap.mean(_rounded(subject, each))
        rows.append((name, _bytes(subject, each), rise))
    total = storage_bytes(layout.count(), "float32")
    chart = line_chart(
        "nats by megabytes of the weights",
        "MB",
        {
            "to nearest": [
                (size / 1e6, rise.estimate) for _, size, rise in sorted(rows, key=lambda r: r[1])
            ]
        },
    )
    by_group = {name: rise.estimate for name, _, rise in rows if name.startswith("int4")}
    return Finding(
        rule,
        interval,
        n=n,
        trials=1 + len(rows),
        text=(
            f"By inputs that share a scale: "
            f"{', '.join(f'{name} {rise:+.4f}' for name, rise in by_group.items())}. Published: {PUBLISHED}."
        ),
        details={"by_group": by_group, "published": PUBLISHED},
        tables=(
            table(
                f"To the nearest code; in float32 the weights are {total / 1e6:.2f} MB",
                {"format": "code", "MB": "number", "nats": "number", "interval": "number"},
                ((name, f"{size / 1e6:.2f}", *_cells(rise)) for name, size, rise in rows),
            ),
        ),
        charts=(chart,),
    )


def _packings(subject: Subject) -> dict[str, Packing]:
    matrices = quantized_matrices(minilm_layout(subject.model.config))
    named = {"int8": make_packing("int8"), "nf4": make_packing("nf4")}
    named |= {f"int4 in groups of {size}": make_packing("int4", size) for size in GROUPS}
    fitting = {}
    for name, packing in named.items():
        try:
            packing.check(matrices)
        except InputError:  # groups that do not divide the rows
            continue
        fitting[name] = packing
    return fitting


def _bytes(subject: Subject, packing: Packing) -> int:
    layout = minilm_layout(subject.model.config)
    matrices = quantized_matrices(layout)
    packed = sum(t.nbytes for name, shape in matrices.items() for t in packing.tensors(name, shape))
    left = layout.count() - sum(rows * columns for rows, columns in matrices.values())
    return packed + storage_bytes(left, "float32")


def _rounded(subject: Subject, packing: Packing) -> Floats:
    """The effect of rounding. Raises InputError where groups do not divide the rows."""
    packing.check(quantized_matrices(minilm_layout(subject.model.config)))
    with replaced(subject.model, rounded_matrices(subject.model, packing)):
        return subject.trials.effect()


def _pruned(subject: Subject) -> Finding:
    matrices = linear_layers(subject.model)
    by_size = scores(matrices, None)
    random = torch.Generator().manual_seed(subject.seed)
    by_chance = {name: torch.rand(each.shape, generator=random) for name, each in by_size.items()}
    rises, differences = [], []
    for sparsity in progress_bar(iterable=SPARSITIES, desc="pruning", leave=False):
        smallest = _masked(subject, global_masks(by_size, sparsity))
        rises.append(smallest)
        differences.append(_masked(subject, global_masks(by_chance, sparsity)) - smallest)
    costs = subject.bootstrap.means(np.stack(rises))
    better = subject.bootstrap.means(np.stack(differences))
    good = [cost.high < MARGIN and gain.low > 0 for cost, gain in zip(costs, better, strict=True)]
    # The estimate and the bounds of the share: what is certainly, and what is perhaps within the margin.
    certain = _largest(good)
    perhaps = _largest([cost.low <= MARGIN for cost in costs])
    estimate = _largest([cost.estimate <= MARGIN for cost in costs])
    lines = {
        "smallest": [(s, cost.estimate) for s, cost in zip(SPARSITIES, costs, strict=True)],
        "random": [
            (s, cost.estimate + gain.estimate)
            for s, cost, gain in zip(SPARSITIES, costs, better, strict=True)
        ],
    }
    return Finding(
        PRUNING,
        Interval(max(certain, min(estimate, perhaps)), certain, max(certain, perhaps)),
        n=len(subject.blocks),
        trials=2 * len(SPARSITIES),
        text=f"Of the shares {', '.join(f'{each:.0%}' for each in SPARSITIES)}.",
        details={"sparsity": list(SPARSITIES), "nats": [cost.estimate for cost in costs]}
        | {"random": [nats for _, nats in lines["random"]]},
        tables=(
            table(
                "Weights set to zero",
                {
                    "share": "number",
                    "smallest": "number",
                    "interval": "number",
                    "at random": "number",
                },
                (
                    (f"{sparsity:.0%}", *_cells(cost), f"{nats:.4f}")
                    for sparsity, cost, (_, nats) in zip(
                        SPARSITIES, costs, lines["random"], strict=True
                    )
                ),
            ),
        ),
        charts=(line_chart("nats by share set to zero", "share", lines),),
    )


def _masked(subject: Subject, masks: Masks) -> Floats:
    matrices = linear_layers(subject.model)
    values = {
        f"{name}.weight": matrices[name].weight.masked_fill(mask, 0) for name, mask in masks.items()
    }
    with replaced(subject.model, values):
        return subject.trials.effect()


def _largest(within: list[bool]) -> float:
    """The largest share up to which all are within."""
    count = next((number for number, each in enumerate(within) if not each), len(within))
    return SPARSITIES[count - 1] if count else 0.0


def _cells(rise: Interval) -> tuple[str, str]:
    return f"{rise.estimate:.4f}", f"{rise.low:.4f} to {rise.high:.4f}"
