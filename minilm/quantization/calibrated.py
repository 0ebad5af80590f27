"""Rounding that keeps a layer's outputs on a text: GPTQ (Frantar et al. 2022, arXiv:2210.17323), in numpy.

Columns are rounded one after another; what one loses, those after it make up for, as far as the inputs of
the layer are correlated. No activation order. Shapes: o outputs, i inputs, g groups of inputs.
"""

from __future__ import annotations

import numpy as np

from minilm.errors import InputError
from minilm.formats.tensor_io import Array
from minilm.quantization.packing import IntegerPacking, Rounded

# Of the mean of the Hessian's diagonal, added to it: raised tenfold until the matrix can be factored.
DAMPING = (0.01, 0.1, 1.0)
_BLOCK = 128  # columns that are rounded before the rest of the matrix is corrected


def round_calibrated(weight: Array, hessian: Array, packing: IntegerPacking) -> Rounded:
    """Round ``weight`` (o, i); ``hessian`` (i, i) is the sum of x xᵀ over the layer's inputs x.

    A weight of zero stays one: what was pruned stays so. Raises InputError where there are too few inputs
    for any damping.
    """
    o, i = weight.shape
    size = packing.group_size or i
    correction = _inverse_factor(hessian)  # i i, upper triangular
    importance = np.diag(hessian).astype(np.float32) / max(float(hessian.max()), 1e-30)
    nonzero = weight != 0
    weight, codes = weight.astype(np.float32, copy=True), np.empty((o, i), np.int8)
    scales = np.empty((o, i // size), np.float32)
    for first in range(0, i, _BLOCK):
        last = min(first + _BLOCK, i)
        errors = np.empty((o, last - first), np.float32)
        for column in range(first, last):
            if column % size == 0:
                # Groups do not cross blocks: what columns before have lost is in these weights.
                group = slice(column, column + size)
                scales[:, column // size] = packing.scales(weight[:, group], importance[group])
            scale = scales[:, column // size]
            nearest = packing.codes(weight[:, column, None], scale)[:, 0]
            codes[:, column] = nearest * nonzero[:, column]
            lost = weight[:, column] - codes[:, column] * scale
            errors[:, column - first] = lost / correction[column, column]
            weight[:, column:last] -= np.outer(
                errors[:, column - first], correction[column, column:last]
            )
        weight[:, last:] -= errors @ correction[first:last, last:]
    return Rounded(codes, scales)


def _inverse_factor(hessian: Array) -> Array:
    """Upper triangular U with UᵀU the inverse of the damped Hessian, float32."""
    i = len(hessian)
    mean = float(np.diag(hessian).mean())
    for share in DAMPING:
        try:
            damped = hessian + max(mean * share, 1e-30) * np.eye(i)
            np.linalg.cholesky(damped)  # an inverse may be positive definite where it is not
            factor = np.linalg.cholesky(np.linalg.inv(damped)).T
        except np.linalg.LinAlgError:
            continue
        if np.isfinite(factor).all():
            return np.asarray(factor, np.float32)
    raise InputError(
        "--calibrate", f"a text that says too little about {i} inputs", "a longer or another text"
    )
