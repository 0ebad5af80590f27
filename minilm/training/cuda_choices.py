"""How the steps of a run compute on CUDA: by which kernel they attend, how many micro-batches are a pass."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from minilm.architectures.minilm import layout
from minilm.config import ModelConfig, TrainConfig
from minilm.costs.training_step import TrainingStep
from minilm.generation.tuning import choose
from minilm.model.attention import KERNELS, fused_attention

# A shorter run, of some seconds, ends before timing has paid for itself.
FROM_FLOPS = 1e15
BY_TORCH = "torch"  # which of the kernels is torch's own choice
PASSES = 4  # that are timed together, so that the card does not wait for Python
AGREE = 0.05  # relative error of a gradient in 16 bits
# Of a card's memory, by prediction: graphs, plans and fragments take theirs. What is free counts only where
# others have much of it, so that the same run is the same on one machine.
LARGEST_SHARE, LARGEST_SHARE_OF_FREE = 0.6, 0.9


def measured_kernel(
    model: ModelConfig, rows: int, length: int, dtype: torch.dtype, device: torch.device
) -> str:
    """BY_TORCH, or one of `KERNELS` that is clearly faster, for ``rows`` of so many tokens in training.

    One that has no kernel for it here, or computes something else, is left out.
    """
    names = [name for name in KERNELS if _is_right(name, model, length, dtype, device)]
    question = (
        f"attention of {rows} x {length} tokens, {model.num_heads} heads of {model.head_dim}, window "
        f"{model.sliding_window}, dropout {model.dropout:g}, {dtype}, trained on {_name(device)}"
    )
    with torch.random.fork_rng(devices=_devices(device)):
        heads = _heads(model, rows, length, dtype, device)
        ways = [(name, partial(_timed, name, heads, model)) for name in (BY_TORCH, *names)]
        for _, run in ways:
            run()  # what is made once, as a plan, is not timed
        return choose(question, ways)


def _is_right(
    name: str, model: ModelConfig, length: int, dtype: torch.dtype, device: torch.device
) -> bool:
    """Whether its gradients for one row are those of the products written out, and it takes the dropout."""
    with torch.random.fork_rng(devices=_devices(device)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says why a kernel is not there
        heads = _heads(model, 1, length, dtype, device)
        try:
            _gradients(KERNELS[name], heads, model, model.dropout)
            gradients = _gradients(KERNELS[name], heads, model, 0.0)
        except RuntimeError:
            return False
        expected = _gradients(SDPBackend.MATH, heads, model, 0.0)
    pairs = zip(gradients, expected, strict=True)
    return all(
        bool((one - other).norm() <= AGREE * other.norm())
        for one, other in ((one.float(), other.float()) for one, other in pairs)
    )


def _heads(
    model: ModelConfig, rows: int, length: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    """Query, key, value and the gradient of the result, (rows, heads, length, head width) each."""
    shape = rows, model.num_heads, length, model.head_dim
    return tuple(torch.randn(shape, dtype=dtype, device=device) for _ in range(4))


def _gradients(
    kernel: SDPBackend | None, heads: tuple[Tensor, ...], model: ModelConfig, dropout: float
) -> tuple[Tensor, ...]:
    """Those of query, key and value, by one ``kernel``; None: by torch's choice."""
    *own, of_result = (each.detach().requires_grad_() for each in heads)
    with nullcontext() if kernel is None else sdpa_kernel(kernel):
        result = fused_attention(*own, window=model.sliding_window, dropout=dropout)
        return torch.autograd.grad(result, own, of_result)


def _timed(name: str, heads: tuple[Tensor, ...], model: ModelConfig) -> None:
    for _ in range(PASSES):
        _gradients(KERNELS.get(name), heads, model, model.dropout)
    if heads[0].is_cuda:
        torch.cuda.synchronize(heads[0].device)


def _devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def micro_batches_at_once(
    config: TrainConfig, model: ModelConfig, length: int, dtype: str, free: int, total: int
) -> int:
    """How many of a step's micro-batches are one pass: as many as divide them and fit.

    ``free`` and ``total`` are bytes of a card.
    """
    most = min(LARGEST_SHARE_OF_FREE * free, LARGEST_SHARE * total)
    step = TrainingStep(
        model,
        layout(model),
        optimizer=config.optimizer,
        dtype=dtype,
        checkpointing=config.activation_checkpointing,
        device="cuda",
    )
    count = config.gradient_accumulation
    for at_once in range(count, 1, -1):
        if count % at_once:
            continue
        if step.memory(at_once * config.batch_size, length).peak <= most:
            return at_once
    return 1
