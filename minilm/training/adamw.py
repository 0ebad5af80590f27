"""AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101), computed by torch's own function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from minilm.training.optimizer_base import Optimizer

EPSILON = 1e-8  # torch's


def step_count(parameter: Tensor) -> Tensor:
    """Where it is read: by the fused kernel, beside the parameter, else by Python."""
    return torch.zeros((), device=parameter.device if _is_fused(parameter) else "cpu")


def _is_fused(parameter: Tensor) -> bool:
    return parameter.device.type in ("cpu", "cuda")


class AdamW(Optimizer):
    """State of a parameter: ``exp_avg`` and ``exp_avg_sq``, like it, and ``step``, from its first update on.

    Each group has its own ``weight_decay``. The rate is a number, or a tensor where a captured graph is to
    read it.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], *, lr: float | Tensor, betas: tuple[float, float]
    ) -> None:
        super().__init__([{"lr": lr, "betas": betas} | group for group in groups])

    @torch.no_grad()
    def update(self) -> None:
        """A parameter without a gradient stays as it is."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            states = [self.state[parameter] for parameter in parameters]
            for parameter, state in zip(parameters, states, strict=True):
                if not state:
                    state["step"] = step_count(parameter)
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
            beta1, beta2 = group["betas"]
            adamw(
                list(parameters),
                [parameter.grad for parameter in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=all(_is_fused(parameter) for parameter in parameters),
                capturable=parameters[0].is_cuda,
                amsgrad=False,
                maximize=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=EPSILON,
            )
