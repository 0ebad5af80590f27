"""The loss of a head whose weights are not trained, a few rows at a time, so that no logits are kept.

Of 512 tokens and GPT-2's 50,257 rows, the logits, their softmax and both gradients take 412 MB in float32.
The gradient of a mean of losses is known with the loss: softmax less one at the target, times the weights (as
in Hsu et al. 2024, arXiv:2410.10989).

Shapes: n tokens, d model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORED = -100
LOGITS_PER_CHUNK = 2**22


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
            total += F.cross_entropy(
                logits.float(), targets[part], ignore_index=IGNORED, reduction="sum"
            )
            if gradient is not None:
                is_target = targets[part] != IGNORED
                change = logits.float().softmax(dim=-1)
                change.scatter_add_(
                    1, targets[part].clamp_min(0)[:, None], -torch.ones_like(change[:, :1])
                )
                change *= is_target[:, None]
                gradient[part] = change.to(logits.dtype) @ weight.to(logits.dtype)
        count = (targets != IGNORED).sum()
        if gradient is not None:
            ctx.save_for_backward(gradient, count)
        return total / count

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor) -> tuple[Tensor, None, None]:
        gradient, count = ctx.saved_tensors
        return (gradient * (of_loss / count)).to(gradient.dtype), None, None
