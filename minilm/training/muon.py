"""Muon: momentum, orthogonalised, for the matrices inside a network.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/). The update is `torch.optim.Muon`'s; what
differs is how it is computed: all matrices of one shape go through the Newton-Schulz iteration as one
batch, in bfloat16 only where the device multiplies it fast. Several processes share the matrices out, and
each orthogonalises whole ones, since a part of one has other singular values.

Legend: n matrices of one shape, r <= c their sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from minilm.parallel.sharded import WholeMatrices, local, part_like
from minilm.training.optimizer_base import Optimizer

# The quintic's coefficients and the smallest norm: those of torch.optim.Muon, which names their source.
A, B, C = 3.4445, -4.7750, 2.0315
SMALLEST_NORM = 1e-7
ITERATIONS = 5  # of Newton-Schulz

Iteration = Callable[[Tensor], Tensor]


class Muon(Optimizer):
    """Every parameter is a matrix. State: ``momentum_buffer``, one of its shape each.

    The iteration is computed in ``dtype``. The learning rate of an update is
    ``lr * sqrt(max(1, rows / columns))``; decay is decoupled, as in AdamW. Rate and momentum are numbers,
    or tensors where a captured graph is to read them.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float | Tensor,
        momentum: float | Tensor,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([{"params": list(parameters)} | settings])
        self._dtype = dtype
        (self._group,) = self.param_groups
        stacks: dict[object, list[nn.Parameter]] = {}
        for parameter in self._group["params"]:
            assert parameter.ndim == 2, f"Muon takes matrices, not {tuple(parameter.shape)}"
            kind = parameter.shape, getattr(parameter, "placements", ())
            stacks.setdefault(kind, []).append(parameter)
        self._stacks = list(stacks.values())
        self._whole = WholeMatrices(self._stacks)
        self._iterate: Iteration = orthogonalize
        self._momentum: list[Tensor] = []
        for same in self._stacks:
            part = local(same[0])
            stacked = torch.zeros(len(same), *part.shape, device=part.device)  # n rows columns
            self._momentum.append(stacked)
            for parameter, own in zip(same, stacked, strict=True):
                # A view: one memory for both uses.
                self.state[parameter]["momentum_buffer"] = part_like(parameter, own)

    @torch.no_grad()
    def compile(self, compiled: Callable[[Iteration], Iteration]) -> None:
        """Iterate by what ``compiled`` makes of `orthogonalize`, which is called for every shape now."""
        self._iterate = compiled(orthogonalize)
        self._orthogonal([torch.zeros_like(each, dtype=self._dtype) for each in self._momentum])

    def _orthogonal(self, updates: list[Tensor]) -> list[Tensor]:
        """(n, rows, columns) each, of this process -> the same."""
        return self._whole.apply(partial(_orthogonalized, self._iterate), updates)

    @torch.no_grad()
    def update(self) -> None:
        """Each parameter must have a gradient."""
        rate, momentum = self._group["lr"], self._group["momentum"]
        updates = []
        for same, momenta in zip(self._stacks, self._momentum, strict=True):
            gradients = torch.stack([local(_gradient(parameter)) for parameter in same])
            momenta.lerp_(gradients, 1 - momentum)
            update = gradients.lerp_(momenta, momentum)  # Nesterov
            updates.append(update.to(self._dtype))
        orthogonal = self._orthogonal(updates)
        for same, update in zip(self._stacks, orthogonal, strict=True):
            rows, columns = same[0].shape
            parameters: list[Tensor] = [local(parameter) for parameter in same]
            if self._group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - rate * self._group["weight_decay"])
            scale = max(1, rows / columns) ** 0.5
            torch._foreach_sub_(parameters, list(update.float() * (rate * scale)))


def _orthogonalized(iterate: Iteration, stacks: list[Tensor]) -> list[Tensor]:
    """(n, rows, columns) each -> the same; tall matrices are transposed, and share a batch with wide ones."""
    sides: dict[tuple[int, ...], list[int]] = {}
    for number, stack in enumerate(stacks):
        sides.setdefault(tuple(sorted(stack.shape[1:])), []).append(number)
    results = list(stacks)
    for numbers in sides.values():
        wide = [
            stacks[k].mT if stacks[k].shape[1] > stacks[k].shape[2] else stacks[k] for k in numbers
        ]
        batch = wide[0] if len(wide) == 1 else torch.cat(wide)  # n r c
        orthogonal = torch.split(iterate(batch), [len(stack) for stack in wide])
        for k, part in zip(numbers, orthogonal, strict=True):
            results[k] = part if part.shape == stacks[k].shape else part.mT
    return results


def orthogonalize(matrices: Tensor) -> Tensor:
    """(n, r, c), r <= c, to about the nearest matrices with orthogonal rows, by Newton-Schulz.

    Singular values end near 1, between 0.7 and 1.2 unless they were tiny.
    """
    norms = matrices.flatten(1).norm(dim=1).clamp(min=SMALLEST_NORM)
    x: Tensor = matrices / norms[:, None, None]
    for _ in range(ITERATIONS):
        gram = torch.bmm(x, x.mT)  # n r r
        polynomial = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
        x = torch.baddbmm(x, polynomial, x, beta=A)  # n r c
    return x


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
