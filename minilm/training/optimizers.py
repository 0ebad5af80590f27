"""Which optimizer updates which parameter, and their state by name.

Muon takes the matrices of the blocks, AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) all others; or
AdamW takes everything. Decay is on matrices only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minilm.config import TrainConfig
from minilm.model.transformer import Transformer
from minilm.training.lr_schedule import lr_multiplier, momentum
from minilm.training.muon import Muon

# The state of a parameter, by optimizer: what a saved run may hold.
STATE_KEYS = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")


def make_optimizers(
    model: Transformer, config: TrainConfig, muon_dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon before it if it is asked for. ``muon_dtype`` is what it multiplies in."""
    optimizers: list[torch.optim.Optimizer] = []
    decayed = matrices(model)
    if config.optimizer == "muon":
        decayed = hidden_matrices(model)
        optimizers.append(
            Muon(
                decayed,
                lr=config.muon_learning_rate,
                momentum=config.muon_momentum,
                weight_decay=config.weight_decay,
                dtype=muon_dtype,
            )
        )
    taken = {id(parameter) for parameter in decayed}
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in taken], "weight_decay": 0.0}
    ]
    if config.optimizer == "adamw":
        groups.append({"params": decayed, "weight_decay": config.weight_decay})
    optimizers.append(
        torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            fused=next(model.parameters()).device.type in ("cpu", "cuda"),
        )
    )
    return optimizers


def set_rates(optimizers: Sequence[torch.optim.Optimizer], step: int, config: TrainConfig) -> float:
    """Set learning rates and momentum for the next update; return the learning rate of AdamW."""
    multiplier = lr_multiplier(step, config)
    for optimizer in optimizers:
        is_muon = isinstance(optimizer, Muon)
        peak = config.muon_learning_rate if is_muon else config.learning_rate
        for group in optimizer.param_groups:
            group["lr"] = peak * multiplier
            if is_muon:
                group["momentum"] = momentum(step, config)
    return config.learning_rate * multiplier


def hidden_matrices(model: Transformer) -> list[nn.Parameter]:
    """The weights of the linear maps inside the blocks."""
    weights = (part.weight for part in model.blocks.modules() if isinstance(part, nn.Linear))
    return [weight for weight in weights if isinstance(weight, nn.Parameter)]


def matrices(model: Transformer) -> list[nn.Parameter]:
    """Those, and the head's; a tied head is an embedding first."""
    head = model.lm_head.weight
    assert isinstance(head, nn.Parameter)
    return hidden_matrices(model) + ([] if model.config.tied_embeddings else [head])


@torch.no_grad()
def add_l1_gradient(parameters: list[nn.Parameter], weight: float) -> None:
    """Add the gradient of ``weight`` times the L1 norm of ``parameters`` to their gradients."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.add_(parameter.sign(), alpha=weight)


def optimizer_tensors(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """The state of every parameter as ``NAME.KEY``, KEY one of `STATE_KEYS`."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for optimizer in optimizers
        if parameter in optimizer.state
        for key, value in optimizer.state[parameter].items()
    }


@torch.no_grad()
def restore_optimizers(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], tensors: dict[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`."""
    for optimizer in optimizers:
        own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for name, parameter in model.named_parameters():
            if id(parameter) not in own:
                continue
            state = optimizer.state[parameter]
            for key in STATE_KEYS:
                saved = tensors.get(f"{name}.{key}")
                if saved is not None and key in state:
                    state[key].copy_(saved)  # Muon's are views of one memory
                elif saved is not None:
                    # The fused kernel keeps the step count beside the parameter.
                    state[key] = saved.to(parameter.device)
