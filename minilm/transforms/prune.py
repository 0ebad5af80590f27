"""Zeros in the matrices of the blocks: the smallest weights, the least used, or two of every four.

Magnitude: Han et al. 2015 (arXiv:1506.02626). Wanda: Sun et al. 2023 (arXiv:2306.11695), |W[o, i]| times the
L2 norm of input i, compared within a row. SparseGPT: `quantization/calibrated.py`. 2:4: Mishra et al. 2021
(arXiv:2104.08378), the pattern that NVIDIA's sparse tensor cores take. Shapes: o outputs, i inputs. A mask
(o, i) is true for what is zeroed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from minilm.errors import InputError
from minilm.model.transformer import Transformer
from minilm.quantization.calibrated import prune_calibrated
from minilm.transforms.activations import layers_in_turn, linear_layers

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


@torch.no_grad()
def prune_by_sparsegpt(
    model: Transformer, windows: Tensor, sparsity: float, *, two_of_four: bool = False
) -> None:
    """Zeros in every matrix of the blocks, and the weights that stay corrected for them.

    ``windows`` (n, t) of tokens say what each matrix is given. With ``two_of_four``, two of every four
    neighbours in a row are zero. Raises InputError for too few tokens, and where 4 divides no row.
    """
    for name, layer in linear_layers(model).items() if two_of_four else ():
        if layer.in_features % GROUP:
            what = f"a multiple of {GROUP} for 2:4"
            remedy = "use --method sparsegpt"
            raise InputError(name, f"{layer.in_features} inputs", what, remedy)
    pattern = (GROUP - KEPT, GROUP) if two_of_four else None
    for _, layer, hessian in layers_in_turn(model, windows):
        weight = prune_calibrated(layer.weight.float().numpy(), hessian, sparsity, pattern)
        layer.weight.copy_(torch.from_numpy(weight))
