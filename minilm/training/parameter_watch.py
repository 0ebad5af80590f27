"""Parameters through time, for parameters.jsonl: what `--train.watch` adds to a run.

Of each component of the ledger that is trained, layer by layer: the norm of its values, the size of the
update as a share of that, and the norm of the gradient; and a histogram of the component's values. Nothing is
drawn at random and no tensor of the training is written to: the numbers of a run are the same with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minilm.architectures.minilm import layout
from minilm.model.transformer import Transformer
from minilm.runs.logs import HISTOGRAM_BINS
from minilm.transforms.lora import is_adapter

# A step is watched at most once in so many tokens, so that it costs less than a hundredth of the training.
TOKENS_BETWEEN = 2**14
# Of the steps from one power of two to the next so many are watched: a long run has few lines more.
STEPS_PER_DOUBLING = 16
MOST_SAMPLED = 2**14  # values of a component that its histogram is made of
DEVIATIONS = 4  # to which a histogram reaches at least, in each direction
EXPONENTS = (-60, 60)  # of the powers of two that a histogram can reach to
DIGITS = 4  # of what is written

_LAYER = re.compile(r"^blocks\.(\d+)\.", re.ASCII)


def is_watched(step: int, tokens: int) -> bool:
    """Whether a line is written after ``step``, of so many tokens: of these alone, so that a run resumes."""
    power = 1 << (step.bit_length() - 1)
    return step % max(math.ceil(TOKENS_BETWEEN / tokens), power // STEPS_PER_DOUBLING) == 0


class ParameterWatch:
    """Of the parameters of ``model`` that are trained. An update that is watched keeps a copy of them."""

    def __init__(self, model: Transformer) -> None:
        components = {
            tensor.name: tensor.component for tensor in layout(model.config).named_tensors()
        }
        self._parameters: list[Tensor] = []
        # Which of them are of a component, by layer; those of no layer are under None.
        self._cells: dict[str, dict[int | None, list[int]]] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            layer = _LAYER.match(name)
            cells = self._cells.setdefault(component_of(name, components), {})
            cells.setdefault(int(layer[1]) if layer else None, []).append(len(self._parameters))
            self._parameters.append(parameter)
        # Written in place, as a graph does.
        self._gradients = torch.zeros(len(self._parameters), device=self._parameters[0].device)
        self._before: list[Tensor] = []
        self._line: dict[str, Any] | None = None

    def keep_gradients(self) -> None:
        """Their norms, of an update that has begun; nothing is waited for."""
        gradients = [_gradient(parameter) for parameter in self._parameters]
        self._gradients.copy_(torch.stack(torch._foreach_norm(gradients)))

    @torch.no_grad()
    def begin_update(self) -> None:
        """Copy what is about to be updated."""
        self._before = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def end_update(self) -> None:
        """Measure the update, and drop the copy."""
        torch._foreach_sub_(self._before, self._parameters)
        updates = torch.stack(torch._foreach_norm(self._before))
        self._before = []
        self._line = self._described(updates, self._gradients)

    @torch.no_grad()
    def beginning(self) -> dict[str, Any]:
        """The line of the parameters as they are before the first update."""
        return self._described()

    def take_line(self) -> dict[str, Any] | None:
        """The line of the last update, once; None where that was not watched."""
        line, self._line = self._line, None
        return line

    def _described(self, *changes: Tensor) -> dict[str, Any]:
        """The fields of a line; ``changes``: norms of the updates and of the gradients, if there are any."""
        norms = torch.stack(torch._foreach_norm(self._parameters))
        squares = torch.stack([norms, *changes]).double().square().tolist()  # waits for the device
        samples = self._samples()
        components: dict[str, Any] = {}
        for component, cells in self._cells.items():
            norm, *others = (
                [math.sqrt(sum(row[index] for index in indices)) for indices in cells.values()]
                for row in squares
            )
            fields: dict[str, Any] = {"norm": _rounded(norm)}
            if others:
                updates, gradients = others
                shares = [u / n if n else 0.0 for u, n in zip(updates, norm, strict=True)]
                fields |= {"update": _rounded(shares), "gradient": _rounded(gradients)}
            layers = [layer for layer in cells if layer is not None]
            components[component] = {
                **({"layers": layers} if layers else {}),
                **fields,
                **histogram(samples[component]),
            }
        return {"components": components}

    def _samples(self) -> dict[str, np.ndarray[Any, Any]]:
        """Values of each component, evenly spread over it: all of a small one."""
        parts = []
        for cells in self._cells.values():
            tensors = [self._parameters[index] for indices in cells.values() for index in indices]
            every = -(-sum(tensor.numel() for tensor in tensors) // MOST_SAMPLED)
            parts.append(torch.cat([_spread(tensor.detach(), every) for tensor in tensors]))
        values = torch.cat(parts).float().cpu().numpy()
        ends = np.cumsum([len(part) for part in parts])[:-1]
        return dict(zip(self._cells, np.split(values, ends), strict=True))


def component_of(name: str, components: dict[str, str]) -> str:
    """The component of a parameter; of an adapter, as the ledger names that of its matrix."""
    if not is_adapter(name):
        return components[name]
    matrix = name.partition(".lora_")[0] + ".weight"
    return f"LoRA of {components.get(matrix, matrix)}"


def histogram(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Counts in equal bins from -limit to limit, a power of two, and how many values are outside of them."""
    values = values[np.isfinite(values)].astype(np.float64)
    reach = DEVIATIONS * math.sqrt(float(np.mean(values**2))) if len(values) else 0.0
    exponent = math.ceil(math.log2(reach)) if reach > 0 else EXPONENTS[0]
    limit = 2.0 ** min(max(exponent, EXPONENTS[0]), EXPONENTS[1])
    half = HISTOGRAM_BINS // 2
    bins = np.floor(values / limit * half).astype(np.int64) + half
    inside = bins[(bins >= 0) & (bins < HISTOGRAM_BINS)]
    counts = np.bincount(inside, minlength=HISTOGRAM_BINS).tolist()
    return {"limit": limit, "counts": counts, "outside": len(values) - len(inside)}


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _spread(tensor: Tensor, every: int) -> Tensor:
    """About one value in ``every``, of all columns alike."""
    while every > 1 and math.gcd(every, tensor.shape[-1]) > 1:
        every += 1
    return tensor.flatten()[::every]


def _rounded(values: Sequence[float]) -> list[float | None]:
    """To `DIGITS`; None for what is not finite, which JSON has no numbers for."""
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values]
