"""Values of MLX: integer * scale + bias of its group, or floats of 4 or 8 bits times a scale; see `mlx.py`.

mlx 0.32 `mlx/ops.cpp` (`affine_dequantize`, `fp_dequantize`): in the dtype of scales after each operation.
Scales of floats are E8M0 (mxfp4, mxfp8) or FP8 (nvfp4), and the values bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilm.formats import number_codes
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array, as_float32
from minilm.quantization.bit_fields import unpack
from minilm.quantization.checkpoint import Checkpoint, UndecodableError
from minilm.quantization.dequantized import (
    EXPONENTS,
    DecodeRows,
    PackedByRows,
    check_shape,
    check_stored,
    is_transposed,
    part,
    read_rows,
    rounding_to,
)
from minilm.quantization.logical_tensors import LogicalTensor
from minilm.quantization.small_float_values import E2M1

_FP8 = "float8_e4m3fn"


@dataclass(frozen=True)
class MlxIntegers(PackedByRows):
    """Matrices in the affine mode."""

    words: StoredTensor
    scales: StoredTensor
    biases: StoredTensor
    bits: int

    def open_rows(self) -> DecodeRows:
        rounded, width = rounding_to(self.scales.dtype), self.stored[-1]

        def decode(first: int, count: int) -> Array:
            codes = unpack(read_rows(self.words, first, count), self.bits)
            scales, biases = (
                as_float32(read_rows(each, first, count))[..., None]
                for each in (self.scales, self.biases)
            )
            groups = codes.reshape(count, scales.shape[1], -1).astype(np.float32)
            return rounded(rounded(groups * scales) + biases).reshape(count, width)

        return decode


@dataclass(frozen=True)
class MlxFloats(PackedByRows):
    """Matrices in mxfp4, mxfp8 or nvfp4."""

    words: StoredTensor
    scales: StoredTensor
    mode: str

    def open_rows(self) -> DecodeRows:
        rounded, width = rounding_to("bfloat16"), self.stored[-1]
        scale_dtype = _FP8 if self.mode == "nvfp4" else EXPONENTS

        def decode(first: int, count: int) -> Array:
            words = read_rows(self.words, first, count)
            if self.mode == "mxfp8":
                values = number_codes.decode(unpack(words, 8), _FP8)
            else:
                values = E2M1[unpack(words, 4)]
            scales = number_codes.decode(read_rows(self.scales, first, count), scale_dtype)
            groups = values.reshape(count, scales.shape[1], -1)
            return rounded(groups * scales[..., None]).reshape(count, width)

        return decode


def packed_by_mlx(tensor: LogicalTensor, checkpoint: Checkpoint) -> PackedByRows:
    """Raises UndecodableError."""
    words, scales = tensor.parts[0], part(tensor, "scales")
    check_stored(words, dtypes=("uint32",))
    bits = 8 if tensor.dtype == "mxfp8" else int(tensor.dtype[-1])
    stored = *words.shape[:-1], words.shape[-1] * 32 // bits
    transposed = is_transposed(tensor, stored)
    if not tensor.dtype.startswith("int"):
        check_stored(scales, dtypes=("uint8",))
        return MlxFloats(stored, transposed, words, scales, tensor.dtype)
    biases = part(tensor, "biases")
    check_stored(scales, biases)
    check_shape(biases, scales.shape)
    if stored[-1] % scales.shape[-1]:
        raise UndecodableError(f"{scales.shape[-1]} groups for {stored[-1]} inputs")
    return MlxIntegers(stored, transposed, words, scales, biases, bits)
