"""Values of FP8 and INT8 times a scale for the whole, a row, a column or a block; see `compressed.py`.

Sources: DeepSeek-V3 `inference/fp8_cast_bf16.py`, whose scale_inv multiplies too; transformers 5.23
`integrations/finegrained_fp8.py` (`Fp8Dequantize`); compressed-tensors 0.20 `quantization/lifecycle/`
(`_dequantize`). Blocks at the ends of rows and columns may be smaller, as DeepSeek's are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from minilm.formats import number_codes, tensor_io
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.checkpoint import Checkpoint, UndecodableError
from minilm.quantization.dequantized import (
    EXPONENTS,
    FLOAT8,
    FLOATS,
    DecodeRows,
    PackedByRows,
    check_shape,
    check_stored,
    is_transposed,
    optional_part,
    read_rows,
    rounding_to,
    value_dtype,
)
from minilm.quantization.logical_tensors import LogicalTensor
from minilm.quantization.packed_integer_values import PackedIntegers
from minilm.quantization.small_float_values import packed_small_floats

_BLOCK = 128  # of DeepSeek, where neither config.json nor the shapes say


@dataclass(frozen=True)
class ScaledMatrix(PackedByRows):
    """Matrices (..., o, i) of bytes, ``scales`` (..., o/block, i/block) in ``scale_dtype``, rounded up."""

    values: StoredTensor
    scales: StoredTensor
    zeros: StoredTensor | None
    scale_dtype: str
    block: tuple[int, int]
    dtype: str

    def open_rows(self) -> DecodeRows:
        (height, width), (rows, columns) = self.stored[-2:], self.block
        rounded = rounding_to(self.dtype)
        # Of a stack, the matrices have scales of their own or all have the same.
        is_shared = self.scales.shape[:-2] != self.stored[:-2]
        scale_rows = 0 if is_shared else self.scales.shape[-2]

        def decode(first: int, count: int) -> Array:
            matrix, row = np.divmod(np.arange(first, first + count), height)
            of_scale = matrix * scale_rows + row // rows
            begin, end = int(of_scale[0]), int(of_scale[-1]) + 1

            def of_values(tensor: StoredTensor, dtype: str) -> Array:
                stored = _floats(read_rows(tensor, begin, end - begin), dtype)
                return np.repeat(stored, columns, axis=1)[of_scale - begin, :width]

            values = _floats(read_rows(self.values, first, count), self.values.dtype)
            if self.zeros is not None:
                values = values - of_values(self.zeros, self.zeros.dtype)
            return rounded(values * of_values(self.scales, self.scale_dtype))

        return decode


def packed_with_scales(tensor: LogicalTensor, checkpoint: Checkpoint) -> PackedByRows:
    """Raises UndecodableError."""
    values, scales = tensor.parts[0], tensor.scales[0]
    if values.dtype == "int32":
        return PackedIntegers.of(tensor, checkpoint)
    if tensor.dtype in ("nvfp4", "mxfp4", "mxfp6"):
        return packed_small_floats(tensor, checkpoint)
    if tensor.dtype != values.dtype:
        raise UndecodableError(f"{tensor.dtype} in {values.dtype}")
    for ending in ("_global_scale", "_scale_2", "_g_idx"):
        if optional_part(tensor, ending) is not None:
            raise UndecodableError(f"a weight{ending} beside {values.dtype}")
    return scaled_matrix(tensor, value_dtype(scales, checkpoint), checkpoint)


def scaled_matrix(tensor: LogicalTensor, dtype: str, checkpoint: Checkpoint) -> ScaledMatrix:
    """Of a tensor whose first scale is that of its values. Raises UndecodableError."""
    values, scales, stored = tensor.parts[0], tensor.scales[0], tensor.parts[0].shape
    check_stored(values, dtypes=("int8", *FLOAT8))
    check_stored(scales, dtypes=(*FLOATS, "uint8", EXPONENTS))
    if len(stored) < 2:
        raise UndecodableError(f"{values.name} of shape {list(stored)}")
    scale_dtype = EXPONENTS if scales.dtype == "uint8" else scales.dtype
    grid = _grid(scales, stored)
    if 0 in grid or grid[:-2] not in (stored[:-2], (1,) * len(stored[:-2])):
        raise UndecodableError(f"{scales.name} of shape {list(scales.shape)}")
    zeros = optional_part(tensor, "_zero_point")
    if zeros is not None:
        check_stored(zeros, dtypes=("int8", *FLOATS))
        check_shape(zeros, scales.shape)
        zeros = replace(zeros, shape=grid)
    return ScaledMatrix(
        *(stored, is_transposed(tensor, stored), values, replace(scales, shape=grid), zeros),
        scale_dtype=scale_dtype,
        block=_block(stored, grid, checkpoint),
        dtype=dtype,
    )


def _grid(scales: StoredTensor, stored: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the scales as one for each block."""
    if scales.count == 1:
        return (1,) * len(stored)
    if len(scales.shape) == len(stored):
        return scales.shape
    first = scales.shape[0] == stored[0]
    return (
        (*stored[:1], *(1,) * (len(stored) - 1))
        if first
        else (*(1,) * (len(stored) - 1), stored[-1])
    )


def _block(
    stored: tuple[int, ...], grid: tuple[int, ...], checkpoint: Checkpoint
) -> tuple[int, int]:
    """Rows and columns of a block. Raises UndecodableError where no size is known that fits."""
    stated = checkpoint.config.get("weight_block_size")
    if not isinstance(stated, list) or len(stated) != 2:
        stated = [_BLOCK, _BLOCK]
    block = []
    for size, number, wanted in zip(stored[-2:], grid[-2:], stated, strict=True):
        even = [] if size % number else [size // number]
        fitting = [
            n
            for n in (wanted, *even, _BLOCK)
            if type(n) is int and n > 0 and -(-size // n) == number
        ]
        if not fitting:
            raise UndecodableError(f"{number} scales for {size} rows or columns")
        block.append(fitting[0])
    return block[0], block[1]


def _floats(codes: Array, dtype: str) -> Array:
    return tensor_io.as_float32(codes) if dtype in FLOATS else number_codes.decode(codes, dtype)
