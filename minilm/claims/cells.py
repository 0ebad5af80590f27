"""Trainings that claims are decided by, each small, within a budget of time, and kept: a later run goes on.

A cell is one training: its settings, seed and data give its numbers, which are written to the cache when
it is done. What the budget does not reach is missing, and the claim inconclusive until a further run has
it.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from minilm import files
from minilm.formats.json_file import read_object
from minilm.model.transformer import Transformer
from minilm.training.adamw import AdamW
from minilm.training.muon import Muon
from minilm.training.optimizer_base import Optimizer
from minilm.training.optimizers import hidden_matrices
from minilm.version import __version__

Numbers = dict[str, float]
OVER_BUDGET = "trainings are missing: run it again, which goes on, or with a larger --budget"
WARM_UP = 0.1  # of the steps

Recipe = Literal["adamw", "muon", "constant"]
RECIPES: dict[Recipe, str] = {  # each with a warm-up
    "adamw": "AdamW, the rate falling as a cosine",
    "muon": "Muon for the matrices of the blocks, the rate falling as a cosine",
    "constant": "AdamW at a constant rate",
}


class Cells:
    """The cells of one checkpoint in ``folder``; none is begun once ``seconds`` have passed."""

    def __init__(self, folder: Path, seconds: float, **shared: Any) -> None:
        self.folder, self.shared = folder, {"minilm": __version__, **shared}
        self.deadline = time.monotonic() + seconds

    def get(self, settings: Mapping[str, Any], compute: Callable[[], Numbers]) -> Numbers | None:
        """The numbers of a cell, computed unless they are kept; None where no time is left."""
        cell = {"all": self.shared, "cell": settings}
        key = json.dumps(cell, sort_keys=True)
        path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
        kept = _read(path)
        if kept is not None:
            return kept
        if time.monotonic() > self.deadline:
            return None
        numbers = compute()
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**cell, "numbers": numbers, "sha256": _digest(numbers)})
        files.write_bytes(path, text.encode())
        return numbers


def _read(path: Path) -> Numbers | None:
    """The numbers of a file; None where there is none, or another than was written."""
    try:
        stored = read_object(path)
        numbers = {name: float(value) for name, value in stored["numbers"].items()}
        return numbers if stored["sha256"] == _digest(numbers) else None
    except (OSError, KeyError, AttributeError, TypeError, ValueError):
        return None


def _digest(numbers: Numbers) -> str:
    return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()


def train(
    model: Transformer,
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    learning_rate: float,
    parameters: Sequence[nn.Parameter] | None = None,
    recipe: Recipe = "adamw",
) -> None:
    """Train ``parameters``, by default all, by a recipe of `RECIPES`; ``loss`` is of each step."""
    trained = list(model.parameters()) if parameters is None else list(parameters)
    model.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    orthogonal = hidden_matrices(model) if recipe == "muon" else []
    names = {id(parameter) for parameter in orthogonal}
    rest = [parameter for parameter in trained if id(parameter) not in names]
    groups = [{"params": rest, "weight_decay": 0.01}]  # torch.optim.AdamW's
    optimizers: list[Optimizer] = [AdamW(groups, lr=learning_rate, betas=(0.9, 0.95))]
    if orthogonal:
        optimizers.append(Muon(orthogonal, lr=learning_rate, momentum=0.95))
    for step in range(steps):
        factor = min(1.0, (step + 1) / max(1, WARM_UP * steps))
        if recipe != "constant":
            factor *= (1 + math.cos(math.pi * step / steps)) / 2
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * factor
            optimizer.zero_grad()
        loss(step).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        for optimizer in optimizers:
            optimizer.step()
    model.requires_grad_(False)
    for parameter in trained:
        parameter.grad = None


def windows(
    tokens: Tensor, length: int, rows: int, random: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets, (rows, length) each, without end: each token once, in random order, then again.

    What does not fill a batch at the end of a pass is left out of it.
    """
    starts = np.arange(0, len(tokens) - length, length)
    assert len(starts) >= rows, "of a text that has a batch"
    while True:
        for batch in random.permutation(starts)[: len(starts) // rows * rows].reshape(-1, rows):
            each = torch.stack([tokens[start : start + length + 1] for start in batch.tolist()])
            yield each[:, :-1], each[:, 1:]
