"""Rounding and pruning that keep a layer's outputs on a text, in numpy.

GPTQ (Frantar et al. 2022, arXiv:2210.17323) and SparseGPT (Frantar and Alistarh 2023, arXiv:2301.00774):
columns are settled one after another; what one loses, those after it make up for, as far as the inputs of
the layer are correlated. No activation order. Shapes: o outputs, i inputs, g groups of inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minilm.errors import InputError
from minilm.formats.tensor_io import Array
from minilm.quantization.integer_packing import IntegerPacking
from minilm.quantization.packing import Rounded

# Of the mean of the Hessian's diagonal, added to it: raised tenfold until the matrix can be factored.
DAMPING = (0.01, 0.1, 1.0)
_BLOCK = 128  # columns that are settled before the rest of the matrix is corrected

# From the weights (o, i) as they are corrected so far and the number of a column: what that becomes, (o,).
Settle = Callable[[Array, int], Array]


def round_calibrated(weight: Array, hessian: Array, packing: IntegerPacking) -> Rounded:
    """Round ``weight`` (o, i); ``hessian`` (i, i) is the sum of x xᵀ over the layer's inputs x.

    A weight of zero stays one: what was pruned stays so. Raises InputError where there are too few inputs
    for any damping.
    """
    o, i = weight.shape
    size = packing.group_size or i
    importance = np.diag(hessian).astype(np.float32) / max(float(hessian.max()), 1e-30)
    nonzero, codes = weight != 0, np.empty((o, i), np.int8)
    scales = np.empty((o, i // size), np.float32)

    def settle(corrected: Array, column: int) -> Array:
        if column % size == 0:
            # Groups do not cross blocks: what columns before have lost is in these weights.
            group = slice(column, column + size)
            scales[:, column // size] = packing.scales(corrected[:, group], importance[group])
        scale = scales[:, column // size]
        nearest = packing.codes(corrected[:, column, None], scale)[:, 0]
        codes[:, column] = nearest * nonzero[:, column]
        values: Array = codes[:, column] * scale
        return values

    _settle_columns(weight, _inverse_factor(hessian, "--calibrate"), settle)
    return Rounded(codes, scales)


def prune_calibrated(
    weight: Array, hessian: Array, sparsity: float, pattern: tuple[int, int] | None = None
) -> Array:
    """``weight`` (o, i) with that fraction of zeros, the rest corrected; ``hessian`` as above.

    What becomes zero is what changes the layer's outputs least: of blocks of columns, or with the ``pattern``
    (zeros, of neighbours) of each such group in a row. A weight of zero stays one. Raises InputError where
    there are too few inputs.
    """
    o, i = weight.shape
    factor = _inverse_factor(hessian, "--method sparsegpt")
    spread, nonzero = np.diag(factor), weight != 0
    is_zero, pruned = np.zeros((o, i), bool), np.empty((o, i), np.float32)
    zeros, size = pattern or (0, _BLOCK)

    def settle(corrected: Array, column: int) -> Array:
        if column % size == 0:
            group = slice(column, min(column + size, i))
            losses = np.square(corrected[:, group] / spread[group])
            losses[~nonzero[:, group]] = -1
            if pattern:
                is_zero[:, group] = _lowest(losses, zeros)
            else:  # so many that there are as many as asked for up to here
                count = int(sparsity * o * group.stop + 1e-9) - int(is_zero.sum())
                is_zero[:, group] = _lowest(losses.reshape(1, -1), count).reshape(losses.shape)
        gone = is_zero[:, column] | ~nonzero[:, column]
        pruned[:, column] = np.where(gone, 0, corrected[:, column])
        values: Array = pruned[:, column]
        return values

    _settle_columns(weight, factor, settle)
    return pruned


def _settle_columns(weight: Array, factor: Array, settle: Settle) -> None:
    """Settle each column of a copy of ``weight``, and let those after it make up for what it lost."""
    weight, i = weight.astype(np.float32, copy=True), weight.shape[1]
    for first in range(0, i, _BLOCK):
        last = min(first + _BLOCK, i)
        errors = np.empty((len(weight), last - first), np.float32)
        for column in range(first, last):
            lost = weight[:, column] - settle(weight, column)
            errors[:, column - first] = lost / factor[column, column]
            weight[:, column:last] -= np.outer(
                errors[:, column - first], factor[column, column:last]
            )
        weight[:, last:] -= errors @ factor[first:last, last:]


def _lowest(rows: Array, count: int) -> Array:
    """(r, n) -> (r, n), true for the ``count`` lowest of each row."""
    is_lowest = np.zeros(rows.shape, bool)
    if count > 0:
        lowest = np.argpartition(rows, count - 1, axis=1)[:, :count]
        np.put_along_axis(is_lowest, lowest, True, axis=1)
    return is_lowest


def _inverse_factor(hessian: Array, option: str) -> Array:
    """Upper triangular U with UᵀU the inverse of the damped Hessian, float32.

    Raises InputError, which names the ``option``, where no damping is enough.
    """
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
        option, f"a text that says too little about {i} inputs", "a longer or another text"
    )
