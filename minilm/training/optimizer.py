"""AdamW with decay on matrices only (Loshchilov and Hutter 2017, arXiv:1711.05101)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minilm.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Two groups: matrices, which decay, and embeddings, norms and biases, which do not."""
    decayed = matrices(model)
    decayed_ids = {id(parameter) for parameter in decayed}
    others = [p for p in model.parameters() if id(p) not in decayed_ids]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=next(model.parameters()).device.type in ("cpu", "cuda"),
    )


def matrices(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that multiply activations; a tied table is an embedding first."""
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and not name.startswith("embedding.")
    ]


@torch.no_grad()
def add_l1_gradient(parameters: list[nn.Parameter], weight: float) -> None:
    """Add the gradient of ``weight`` times the L1 norm of ``parameters`` to their gradients."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.add_(parameter.sign(), alpha=weight)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of every parameter as ``NAME.exp_avg``, ``NAME.exp_avg_sq``, ``NAME.step``."""
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{name}.{key}"] = value
    return tensors


def restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`; every tensor goes to its parameter's device."""
    for name, parameter in model.named_parameters():
        for key in ("exp_avg", "exp_avg_sq", "step"):
            if f"{name}.{key}" in tensors:
                value = tensors[f"{name}.{key}"]
                # The fused kernel keeps the step count beside the parameter.
                optimizer.state[parameter][key] = value.to(parameter.device)
