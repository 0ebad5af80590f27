"""Cross-entropy a few rows at a time, its gradient computed with it: no softmax of all tokens is ever kept.

Of 512 tokens and GPT-2's 50,257 rows, the logits, their softmax and both gradients take 412 MB in float32.
The gradient of a mean of losses is known with the loss: softmax less one at the target, times the weights (as
in Hsu et al. 2024, arXiv:2410.10989). Of many tokens not even the logits are kept: the gradients of the
head's input and of its matrix are summed chunk by chunk.

Shapes: n tokens, d model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook

from minilm.config import loss_chunks
from minilm.model.first_derivative import refuse_second
from minilm.model.layers import LMHead, is_watched

IGNORED = -100
# Of a gradient that is kept in float16, whose least number is 6e-8, until the loss's own scale is known.
FLOAT16_SCALE = 2.0**15


def is_chunked(head: nn.Module, tokens: Tensor) -> bool:
    """Whether the logits of ``tokens`` are too many to be kept, and ``head`` is no more than its matrix.

    Compiled for a CPU, chunks take half as long again as all at once. In float16 the gradient of a trained
    matrix, a sum over tokens, would overflow before the scale of the loss is known.
    """
    if torch.compiler.is_compiling():
        if not tokens.is_cuda:
            return False
    elif _has_any_global_hook():  # type: ignore[no-untyped-call]
        return False
    return (
        type(head) is LMHead
        and type(head.weight) is nn.Parameter
        and not is_watched(head)
        and not (head.weight.requires_grad and _dtype(head.weight) == torch.float16)
        and loss_chunks.is_chunked(tokens.numel() * head.out_features, tokens.device.type)
    )


def chunked_loss(head: LMHead, x: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of ``targets`` (n,) by ``head`` of x (n, d)."""
    weight = head.weight if torch.is_grad_enabled() else head.weight.detach()
    padding = head.padding if x.is_cuda else 0
    loss: Tensor = _ChunkedLoss.apply(x, weight, targets, padding)  # type: ignore[no-untyped-call]
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
        rows = loss_chunks.rows_in_cache(logits.shape[1])
        total = torch.zeros((), device=logits.device)
        gradient = torch.empty_like(logits)
        ctx.scale = FLOAT16_SCALE if logits.dtype == torch.float16 else 1.0
        for start in range(0, len(logits), rows):
            part = slice(start, start + rows)
            of_part, change = _sum_and_change(logits[part], targets[part])
            total += of_part
            gradient[part] = change.mul_(ctx.scale)
            del change  # before the next one is there
        count = _count(targets)
        ctx.save_for_backward(gradient, count)
        return total / count

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor) -> tuple[Tensor, None]:
        refuse_second("the loss")
        gradient, count = ctx.saved_tensors
        return gradient * (of_loss / (count * ctx.scale)), None


class _ChunkedLoss(torch.autograd.Function):
    """The products have ``padding`` rows of zeros appended to the matrix, and are in the autocast dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, padding: int) -> Tensor:
        device, vocabulary = x.device, len(weight)
        of_input, of_weight = (
            torch.zeros_like(each, dtype=torch.float32) if needed else None
            for each, needed in zip((x, weight), ctx.needs_input_grad[:2], strict=True)
        )
        dtype = _dtype(x)
        matrix = F.pad(weight.to(dtype), (0, 0, 0, padding)) if padding else weight.to(dtype)
        rows = loss_chunks.rows_of_chunk(vocabulary, device.type)
        total = torch.zeros((), device=device)
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            of_part = x[part].to(dtype)
            logits = of_part @ matrix.t()  # n (V + padding)
            if of_input is None and of_weight is None:
                logits = logits[:, :vocabulary].float()
                total += F.cross_entropy(
                    logits, targets[part], ignore_index=IGNORED, reduction="sum"
                )
                continue
            loss, change = _sum_and_change(logits[:, :vocabulary], targets[part])
            total += loss
            logits[:, :vocabulary] = (
                change  # their gradient; that of the padding is multiplied by zeros
            )
            del change
            if of_input is not None:
                of_input[part] = logits @ matrix
            if of_weight is not None:
                of_weight += (logits.t() @ of_part)[:vocabulary]
        count = _count(targets)
        ctx.save_for_backward(of_input, of_weight, count)
        ctx.dtypes = x.dtype, weight.dtype
        return total / count

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        refuse_second("the loss")
        *gradients, count = ctx.saved_tensors
        of_input, of_weight = (
            None if gradient is None else (gradient * (of_loss / count)).to(dtype)
            for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
        )
        return of_input, of_weight, None, None


def _dtype(tensor: Tensor) -> torch.dtype:
    """Of its products: that of autocast, where it is on."""
    device = tensor.device.type
    is_cast = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if is_cast else tensor.dtype


def _count(targets: Tensor) -> Tensor:
    return (targets != IGNORED).sum(dtype=torch.float32)
