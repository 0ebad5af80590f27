"""Which optimizer updates which parameter, and their state by name.

Muon updates the matrices of the blocks, AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) the rest; or
AdamW updates everything. Decay is on matrices only. What does not require a gradient is updated by none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from minilm.config import TrainConfig
from minilm.model.transformer import Transformer
from minilm.training.adamw import AdamW, step_count
from minilm.training.lr_schedule import lr_multiplier, momentum
from minilm.training.muon import Muon
from minilm.training.optimizer_base import Optimizer
from minilm.transforms.lora import is_adapter

# The state of a parameter, by optimizer: what a saved run may hold.
STATE_KEYS = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")


def make_optimizers(
    model: Transformer, config: TrainConfig, muon_dtype: torch.dtype
) -> list[Optimizer]:
    """Of the parameters that are trained: AdamW, and Muon before it if it is asked for.

    ``muon_dtype`` is what Muon multiplies in. An optimizer that would have no parameter is left out. On CUDA
    the rates are tensors there, which a captured step reads as they are when it is replayed.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    on_cuda = any(parameter.is_cuda for parameter in trained)

    def rate(value: float) -> float | Tensor:
        return torch.tensor(value, device=trained[0].device) if on_cuda else value

    is_muon = config.optimizer == "muon"
    decayed = hidden_matrices(model) if is_muon else matrices(model)
    decayed = [parameter for parameter in decayed if parameter.requires_grad]
    decayed_ids = {id(parameter) for parameter in decayed}
    others = [parameter for parameter in trained if id(parameter) not in decayed_ids]
    optimizers: list[Optimizer] = []
    if is_muon and decayed:
        optimizers.append(
            Muon(
                decayed,
                lr=rate(config.muon_learning_rate),
                momentum=rate(config.muon_momentum),
                weight_decay=config.weight_decay,
                dtype=muon_dtype,
            )
        )
    groups = [{"params": others, "weight_decay": 0.0}]
    if not is_muon:
        groups.append({"params": decayed, "weight_decay": config.weight_decay})
    groups = [group for group in groups if group["params"]]
    if groups:
        optimizers.append(
            AdamW(groups, lr=rate(config.learning_rate), betas=(config.beta1, config.beta2))
        )
    return optimizers


def set_rates(optimizers: Sequence[Optimizer], step: int, config: TrainConfig) -> float:
    """Set learning rates and momentum for the next update; return the learning rate of AdamW."""
    multiplier = lr_multiplier(step, config)
    for optimizer in optimizers:
        is_muon = isinstance(optimizer, Muon)
        peak = config.muon_learning_rate if is_muon else config.learning_rate
        for group in optimizer.param_groups:
            _set(group, "lr", peak * multiplier)
            if is_muon:
                _set(group, "momentum", momentum(step, config))
    return config.learning_rate * multiplier


def _set(group: dict[str, Any], name: str, value: float) -> None:
    """A field of a parameter group: a tensor stays where it is."""
    if isinstance(group[name], Tensor):
        group[name].fill_(value)
    else:
        group[name] = value


def hidden_matrices(model: Transformer) -> list[nn.Parameter]:
    """The weights of the linear maps inside the blocks."""
    return _linear_weights(model.blocks)


def matrices(model: Transformer) -> list[nn.Parameter]:
    """Those, and the head's; a tied head is an embedding first."""
    head = _linear_weights(model.lm_head)
    return hidden_matrices(model) + [w for w in head if w is not model.embedding.token.weight]


def _linear_weights(module: nn.Module) -> list[nn.Parameter]:
    weights = (part.weight for part in module.modules() if isinstance(part, nn.Linear))
    return [weight for weight in weights if isinstance(weight, nn.Parameter)]


@torch.no_grad()
def add_l1_gradient(parameters: list[nn.Parameter], weight: float) -> None:
    """Add the gradient of ``weight`` times the L1 norm of ``parameters`` to their gradients."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.add_(parameter.sign(), alpha=weight)


@torch.no_grad()
def hold_zeros(model: Transformer, optimizers: Sequence[Optimizer]) -> None:
    """After each step of an optimizer, zero again what is zero now in the matrices of the blocks.

    Gradients and moments of it are there all the same, and change nothing. Adapters, half of which begin
    as zeros, are no matrices of the model's.
    """
    adapters = {id(p) for name, p in model.named_parameters() if is_adapter(name)}
    zeros = {id(m): m == 0 for m in hidden_matrices(model) if id(m) not in adapters}

    @torch.no_grad()
    def zero_again(parameters: list[nn.Parameter]) -> None:
        for parameter in parameters:
            if id(parameter) in zeros:
                parameter.masked_fill_(zeros[id(parameter)], 0)

    for optimizer in optimizers:
        for group in optimizer.param_groups:
            optimizer.after_step.append(partial(zero_again, group["params"]))


def optimizer_tensors(model: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """The state of every parameter as ``NAME.KEY``, KEY one of `STATE_KEYS`."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for optimizer in optimizers
        if parameter in optimizer.state
        for key, value in optimizer.state[parameter].items()
    }


def optimizer_state_shapes(
    model: nn.Module, optimizers: Sequence[Optimizer], step: int
) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """Dtype and shape of every tensor of `optimizer_tensors` after ``step`` updates.

    Derived from each parameter: AdamW's means are like the parameter, Muon's buffers are there from the
    beginning, and a frozen parameter, which no optimizer has, has none.
    """
    shapes: dict[str, tuple[torch.dtype, torch.Size]] = {}
    for optimizer in optimizers:
        own = _parameter_ids(optimizer)
        for name, parameter in model.named_parameters():
            if id(parameter) not in own:
                continue
            if isinstance(optimizer, Muon):
                buffer = optimizer.state[parameter]["momentum_buffer"]
                shapes[f"{name}.momentum_buffer"] = (buffer.dtype, buffer.shape)
            elif step > 0:  # before its first update AdamW has no state
                like = (parameter.dtype, parameter.shape)
                shapes |= {f"{name}.exp_avg": like, f"{name}.exp_avg_sq": like}
                shapes[f"{name}.step"] = (torch.float32, torch.Size())
    return shapes


def _parameter_ids(optimizer: Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


@torch.no_grad()
def allocate_state(
    model: nn.Module, optimizers: Sequence[Optimizer], names: Collection[str]
) -> None:
    """Make those of `optimizer_tensors` that are not there yet, without values, to be filled in place."""
    for optimizer in optimizers:
        own = _parameter_ids(optimizer)
        for name, parameter in model.named_parameters():
            if id(parameter) not in own:
                continue
            state = optimizer.state[parameter]
            for key in STATE_KEYS:
                if f"{name}.{key}" not in names or key in state:
                    continue
                is_count = key == "step"
                state[key] = step_count(parameter) if is_count else torch.empty_like(parameter)
