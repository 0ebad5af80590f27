"""Zeros in the matrices of the blocks: the smallest weights, the least used, or two of every four.

Magnitude: Han et al. 2015 (arXiv:1506.02626). Wanda: Sun et al. 2023 (arXiv:2306.11695), |W[o, i]| times the
L2 norm of input i, compared within a row. 2:4: Mishra et al. 2021 (arXiv:2104.08378), the pattern that
NVIDIA's sparse tensor cores take. Shapes: o outputs, i inputs. A mask (o, i) is true for what is zeroed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from minilm.errors import InputError

Masks = dict[str, Tensor]

GROUP, KEPT = 4, 2  # of the pattern 2:4


def scores(
    matrices: Mapping[str, nn.Linear], norms: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """How much each weight matters, (o, i): its magnitude, times the norm of its input if that is known."""
    return {
        name: matrix.weight.detach().abs().float() * (1 if norms is None else norms[name])
        for name, matrix in matrices.items()
    }


def global_masks(scores: Mapping[str, Tensor], sparsity: float) -> Masks:
    """The lowest of all matrices together: some lose more than others."""
    flat = torch.cat([each.flatten() for each in scores.values()])
    mask = _lowest(flat[None], sparsity)[0]
    parts = torch.split(mask, [each.numel() for each in scores.values()])
    return {
        name: part.view_as(each) for (name, each), part in zip(scores.items(), parts, strict=True)
    }


def matrix_masks(scores: Mapping[str, Tensor], sparsity: float) -> Masks:
    """The lowest of each matrix."""
    return {
        name: _lowest(each.flatten()[None], sparsity).view_as(each) for name, each in scores.items()
    }


def row_masks(scores: Mapping[str, Tensor], sparsity: float) -> Masks:
    """The lowest of each row: of the weights of one output."""
    return {name: _lowest(each, sparsity) for name, each in scores.items()}


def two_of_four_masks(scores: Mapping[str, Tensor]) -> Masks:
    """The two lowest of every four neighbours in a row. Raises InputError where 4 divides no row."""
    masks = {}
    for name, each in scores.items():
        if each.shape[1] % GROUP:
            raise InputError(
                name,
                f"{each.shape[1]} inputs",
                f"a multiple of {GROUP} for 2:4",
                "use --method wanda",
            )
        masks[name] = _lowest(each.view(-1, GROUP), KEPT / GROUP).view_as(each)
    return masks


def _lowest(rows: Tensor, fraction: float) -> Tensor:
    """(r, n) -> (r, n), true for int(fraction * n) in each row: exactly so many, ties or not."""
    count = int(fraction * rows.shape[1] + 1e-9)  # 0.29 of 100 is 29
    lowest = rows.topk(count, dim=1, largest=False).indices
    return torch.zeros_like(rows, dtype=torch.bool).scatter_(1, lowest, True)


@torch.no_grad()
def apply_masks(matrices: Mapping[str, nn.Linear], masks: Masks) -> None:
    """Set what is masked to zero. Biases stay."""
    for name, mask in masks.items():
        matrices[name].weight.masked_fill_(mask, 0)


def bitmask_bytes(zeros: Tensor, element_size: int) -> int:
    """Bytes of a matrix in compressed-tensors' sparse-bitmask form; ``zeros``, (o, i), is true for zeros.

    Its values that are not zero, a bit for each element with the rows padded to bytes, an int64 offset for
    each row, and the shape as two int64 (compressed-tensors 0.12, `sparse_bitmask.py`).
    """
    rows, columns = zeros.shape
    kept = zeros.numel() - int(zeros.count_nonzero())
    return kept * element_size + rows * (-(-columns // 8) + 8) + 16
