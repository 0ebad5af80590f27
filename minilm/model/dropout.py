"""Dropout (Srivastava et al. 2014), with masks that a CPU draws fast.

torch draws a number for each element on one thread, which takes as long as the rest of a training step with
256 tokens. Here one number of the same generator decides on four elements, with 16 bits each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 2**16


class Dropout(nn.Module):
    """An element is zero with ``probability``, else divided by the rate of those that are kept."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.probability) if self.training else x

    def extra_repr(self) -> str:
        return f"{self.probability:g}"


def dropout(x: Tensor, probability: float) -> Tensor:
    """``x``, of any shape, as in training. On a CPU the probability is rounded to 1 in 65,536."""
    if probability == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    if _rows is None:
        mask: Tensor = noise(x.detach(), probability)
    else:
        part, total = _rows
        per_row = x.shape[0] // (part.stop - part.start)
        whole = x.detach()[:1].expand(per_row * total, *x.shape[1:])
        mask = noise(whole, probability)[part.start * per_row : part.stop * per_row]
    return x * mask


# Of several processes each has some rows of a batch of so many: drawn for all, used for these.
_rows: tuple[slice, int] | None = None


def drop_for(rows: tuple[slice, int] | None) -> None:
    """From now on an input on a CPU has these rows of a batch of so many; None: all of it."""
    global _rows
    _rows = rows


# An operator of its own: torch's compiler would draw the numbers otherwise, and slower. The tag says that two
# calls differ.
@torch.library.custom_op(
    "minilm::dropout_noise", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,)
)
def noise(x: Tensor, probability: float) -> Tensor:
    """What ``x`` is multiplied by: zero, or the inverse of the rate of what is kept."""
    kept = min(max(round((1 - probability) * LEVELS), 1), LEVELS - 1)
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    is_kept = draws.view(torch.int16)[: x.numel()].lt_(kept - LEVELS // 2)  # 0 or 1
    scale = LEVELS / kept
    if x.element_size() == is_kept.element_size():
        # The bits of the scale or of zero, in one pass over integers: conversions take ten times as long.
        bits = torch.tensor(scale, dtype=x.dtype).view(torch.int16)
        return is_kept.mul(bits).view(x.dtype).view(x.shape)
    return is_kept.to(x.dtype).mul_(scale).view(x.shape)


@noise.register_fake
def _(x: Tensor, probability: float) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)
