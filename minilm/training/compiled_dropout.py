"""Whether dropout as torch's compiler writes it keeps its promises on this device.

torch 2.13 is reported to give groups of four adjacent channels one mask on CUDA, and another mask where the
forward pass is recomputed (pytorch issue 198333).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

SHAPE = (64, 32, 64)  # rows, tokens, channels
STANDARD_ERRORS = 5.0
# By how much a mask is shifted against itself, along which dimension.
SHIFTS = ((1, 2), (2, 2), (3, 2), (4, 2), (1, 1), (1, 0))


def fault_of_compiled_dropout(device: torch.device, probability: float) -> str | None:
    """What is wrong with masks that drop with that probability; None: nothing. Random states are kept."""
    devices = [device] if device.type == "cuda" else []
    x = torch.ones(SHAPE, device=device, requires_grad=True)
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        dropped = torch.compile(_dropped, dynamic=False)(x, probability)
        torch.autograd.backward(dropped.sum())
    assert x.grad is not None
    kept = dropped.detach() != 0
    if not torch.equal(x.grad != 0, kept):
        return "its backward pass drops others than its forward pass"
    rate = 1 - probability
    # Standard errors of a mean of so many independent masks, and of their products.
    limit = STANDARD_ERRORS / math.sqrt(kept.numel())
    centred = kept.float() - rate
    deviation = math.sqrt(rate * probability)
    if abs(float(centred.mean())) > limit * deviation:
        return f"it keeps {float(kept.float().mean()):.2%} instead of {rate:.2%}"
    for shift, dimension in SHIFTS:
        product = float((centred * centred.roll(shift, dimension)).mean())
        if abs(product) > limit * deviation**2:
            return "its masks of neighbours are not independent"
    return None


def _dropped(x: Tensor, probability: float) -> Tensor:
    return F.dropout(x, probability)
