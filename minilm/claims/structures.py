"""Parts of a model that are set to zero, or to new initial values, together.

Components, layers, heads, and rows and feed-forward units drawn at random. What is removed together is no
longer in one place: what such a change costs speaks of many parameters, not of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from minilm.architectures.minilm import layout as minilm_layout
from minilm.claims.protocol import Interval
from minilm.claims.subject import Subject
from minilm.claims.tables import table
from minilm.claims.trials import Floats, first_layer, replaced
from minilm.model.transformer import Transformer
from minilm.progress import progress_bar
from minilm.render.document import Table

DRAWN = 20  # rows, and feed-forward units

Change = dict[str, Tensor]


class Structure(NamedTuple):
    """A part of the model, and how to set it to zero."""

    kind: str
    name: str
    parameters: int
    change: Change


def effect_of(subject: Subject, change: Change) -> Floats:
    """(n,) of the blocks, with these values."""
    with replaced(subject.model, change):
        return subject.trials.effect(min(first_layer(subject.model, name) for name in change))


def rises_of(subject: Subject, changes: Iterable[Change], activity: str) -> list[Interval]:
    """How much the loss rises by each change."""
    changes = list(changes)
    effects = [
        effect_of(subject, change)
        for change in progress_bar(iterable=changes, desc=activity, leave=False)
    ]
    return subject.bootstrap.means(np.stack(effects))


def structures_of(model: Transformer, random: np.random.Generator) -> Iterator[Structure]:
    """Each component, layer and head, and some units and rows of matrices, drawn at random."""
    yield from components_of(model)
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
    for _ in range(DRAWN):
        block = int(random.integers(len(model.blocks)))
        unit = int(random.integers(model.config.d_feed_forward))
        name = f"blocks.{block}.feed_forward.down.weight"
        yield _columns(model, "unit", f"{block}.{unit}", name, slice(unit, unit + 1))

    matrices = {name: p for name, p in model.named_parameters() if p.ndim == 2}
    for _ in range(DRAWN):
        name = list(matrices)[int(random.integers(len(matrices)))]
        row = int(random.integers(len(matrices[name])))
        without = matrices[name].detach().clone()
        without[row] = 0
        yield Structure("row", f"{name}[{row}]", without.shape[1], {name: without})


def components_of(model: Transformer) -> Iterator[Structure]:
    """Each component of the ledger."""
    for component, names in _components(model).items():
        yield _whole(model, "component", component, names)


def drawn_anew(model: Transformer, structure: Structure, seed: int) -> Change:
    """The structure's tensors as a new model has them."""
    new = Transformer(model.config, torch.Generator().manual_seed(seed))
    return {name: new.get_parameter(name).detach() for name in structure.change}


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


def structure_table(structures: Sequence[Structure], rises: Sequence[Interval]) -> Table:
    """Each component and layer; of what there are many of the worst, the median and the least."""
    rows = []
    for kind in dict.fromkeys(structure.kind for structure in structures):
        each = [pair for pair in zip(structures, rises, strict=True) if pair[0].kind == kind]
        each.sort(key=lambda pair: -pair[1].estimate)
        if kind in ("head", "unit", "row"):
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
