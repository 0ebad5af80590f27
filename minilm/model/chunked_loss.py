"""Cross-entropy a few rows at a time, its gradient computed with it: no softmax of all tokens is ever kept.

Of 512 tokens and GPT-2's 50,257 rows, the logits, their softmax and both gradients take 412 MB in float32.
The gradient of a mean of losses is known with the loss: softmax less one at the target, times the weights (as
in Hsu et al. 2024, arXiv:2410.10989). Where the head is not trained, not even its logits are kept.

Shapes: n tokens, d model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minilm.model.first_derivative import refuse_second

IGNORED = -100
LOGITS_PER_CHUNK = 2**22
# Of logits that are there: as many as stay in a core's cache in float32.
CACHED_LOGITS = 2**17
# Of a gradient that is kept in float16, whose least number is 6e-8, until the loss's own scale is known.
FLOAT16_SCALE = 2.0**15


def is_chunked(head: nn.Module, tokens: Tensor) -> bool:
    """Whether the logits of ``tokens`` are too many to be kept, and no gradient of ``head`` is asked for."""
    weight = getattr(head, "weight", None)
    if not isinstance(weight, nn.Parameter) or torch.compiler.is_compiling():
        return False
    is_trained = weight.requires_grad and torch.is_grad_enabled()
    return not is_trained and tokens.numel() * weight.shape[0] > LOGITS_PER_CHUNK


def chunked_loss(head: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of ``targets`` (n,) by ``head`` of x (n, d)."""
    loss: Tensor = _ChunkedLoss.apply(x, head, targets)  # type: ignore[no-untyped-call]
    return loss


def loss_of_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of ``targets`` (n,) by logits (n, V), computed in float32.

    In training on a CPU the gradient is computed in the same pass, and kept in the logits' dtype.
    """
    is_trained = torch.is_grad_enabled() and logits.requires_grad
    if logits.device.type != "cpu" or not is_trained or torch.compiler.is_compiling():
        return F.cross_entropy(logits.float(), targets, ignore_index=IGNORED)
    loss: Tensor = _LossOfLogits.apply(logits, targets)  # type: ignore[no-untyped-call]
    return loss


def _sum_and_change(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the losses, and its gradient (n, V), in float32."""
    losses = torch.log_softmax(logits.float(), dim=-1)  # n V
    total = F.nll_loss(losses, targets, ignore_index=IGNORED, reduction="sum")
    change = losses.exp_()
    ones = torch.ones_like(change[:, :1])
    change.scatter_add_(1, targets.clamp_min(0)[:, None], -ones)
    change *= (targets != IGNORED)[:, None]
    return total, change


class _LossOfLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        rows = max(1, CACHED_LOGITS // logits.shape[1])
        total = torch.zeros((), device=logits.device)
        gradient = torch.empty_like(logits)
        ctx.scale = FLOAT16_SCALE if logits.dtype == torch.float16 else 1.0
        for start in range(0, len(logits), rows):
            part = slice(start, start + rows)
            of_part, change = _sum_and_change(logits[part], targets[part])
            total += of_part
            gradient[part] = change.mul_(ctx.scale)
            del change  # before the next one is there
        count = (targets != IGNORED).sum(dtype=torch.float32)
        ctx.save_for_backward(gradient, count)
        return total / count

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor) -> tuple[Tensor, None]:
        refuse_second("the loss")
        gradient, count = ctx.saved_tensors
        return gradient * (of_loss / (count * ctx.scale)), None


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
        weight: Any = head.weight
        rows = max(1, LOGITS_PER_CHUNK // weight.shape[0])
        total = torch.zeros((), device=x.device)
        gradient = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            logits = head(x[part])  # n V
            if gradient is None:
                total += F.cross_entropy(
                    logits.float(), targets[part], ignore_index=IGNORED, reduction="sum"
                )
                continue
            of_part, change = _sum_and_change(logits, targets[part])
            total += of_part
            gradient[part] = change.to(logits.dtype) @ weight.to(logits.dtype)
        count = (targets != IGNORED).sum()
        if gradient is not None:
            ctx.save_for_backward(gradient, count)
        return total / count

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor) -> tuple[Tensor, None, None]:
        refuse_second("the loss")
        gradient, count = ctx.saved_tensors
        return (gradient * (of_loss / count)).to(gradient.dtype), None, None
