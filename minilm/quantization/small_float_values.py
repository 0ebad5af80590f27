"""Values of FP4 and FP6 in blocks that share a scale: MXFP4, MXFP6 and NVFP4, as each method stores them.

Numbers: OCP Microscaling Formats (MX) v1.0, section 5.3 (E2M1, E2M3) and 5.4.1 (E8M0, powers of two; the code
255 is NaN, which transformers reads as 2^128 in gpt-oss). The first of two values is in a byte's lower half.

    gpt-oss             X_blocks uint8 (e, o, i/32, 16)  X_scales uint8, E8M0; the model has (e, i, o)
    compressed-tensors  X.weight_packed uint8 (o, i/2)   X.weight_scale uint8, E8M0 (o, i/32), or FP8
                        (o, i/16), which a weight_global_scale divides; FP6 alike, uint8 (o, i*6/8)
    ModelOpt            X.weight uint8 (o, i/2)          X.weight_scale FP8 (o, i/16), times weight_scale_2
    DeepSeek-V4         X.weight int8 (o, i/2)           X.scale E8M0 (o, i/32)

Sources: transformers 5.23 `integrations/mxfp4.py` and `finegrained_fp8.py` (`Fp8Dequantize`),
compressed-tensors 0.20 `compressors/`, vLLM's reader of ModelOpt's files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from minilm.formats import number_codes
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.bit_fields import unpack
from minilm.quantization.checkpoint import Checkpoint, UndecodableError
from minilm.quantization.dequantized import (
    EXPONENTS,
    DecodeRows,
    PackedByRows,
    check_shape,
    check_stored,
    is_transposed,
    optional_part,
    read_floats,
    read_rows,
    rounding_to,
    value_dtype,
)
from minilm.quantization.logical_tensors import LogicalTensor

_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1 = np.array([*_MAGNITUDES, *(-value for value in _MAGNITUDES)], np.float32)
_EIGHTHS = (*range(8), *range(8, 16), *range(16, 32, 2), *range(32, 64, 4))
_E2M3 = np.array([*_EIGHTHS, *(-float(value) for value in _EIGHTHS)], np.float32) / 8
_VALUES: dict[int, Array] = {4: E2M1, 6: _E2M3}  # by bits


@dataclass(frozen=True)
class SmallFloats(PackedByRows):
    """Matrices in FP4 or FP6: ``packed`` (..., o, i*bits/8), ``scales`` (..., o, g) in ``scale_dtype``.

    A scale is multiplied by the value of ``factor``, or divided by that of ``divisor``, where there is one.
    """

    packed: StoredTensor
    scales: StoredTensor
    scale_dtype: str
    bits: int
    dtype: str
    factor: StoredTensor | None = None
    divisor: StoredTensor | None = None

    def open_rows(self) -> DecodeRows:
        rounded, width = rounding_to(self.dtype), self.stored[-1]
        of_code = _VALUES[self.bits]
        factor = read_floats(self.factor).reshape(()) if self.factor else None
        divisor = read_floats(self.divisor).reshape(()) if self.divisor else None

        def decode(first: int, count: int) -> Array:
            values = of_code[unpack(read_rows(self.packed, first, count), self.bits)]
            codes = read_rows(self.scales, first, count)
            scales = number_codes.decode(codes, self.scale_dtype)
            if factor is not None:
                scales = scales * factor
            if divisor is not None:
                scales = scales / divisor
            groups = values.reshape(count, scales.shape[1], -1)
            return rounded((groups * scales[..., None]).reshape(count, width))

        return decode


def packed_by_gpt_oss(tensor: LogicalTensor, checkpoint: Checkpoint) -> PackedByRows:
    """Raises UndecodableError. The model has each expert transposed, squares too."""
    blocks, scales = tensor.parts[0], tensor.scales[0]
    check_stored(blocks, scales, dtypes=("uint8",))
    *leading, groups, nbytes = blocks.shape
    packed = replace(blocks, shape=(*leading, groups * nbytes))
    stored = *leading, 2 * groups * nbytes
    if len(stored) < 2:
        raise UndecodableError(f"blocks of shape {list(blocks.shape)}")
    transposed = is_transposed(tensor, stored) or stored[-1] == stored[-2]
    dtype = value_dtype(scales, checkpoint)
    return SmallFloats(stored, transposed, packed, scales, EXPONENTS, bits=4, dtype=dtype)


def packed_small_floats(tensor: LogicalTensor, checkpoint: Checkpoint) -> PackedByRows:
    """All others but torchao's. Raises UndecodableError."""
    factor, divisor = (optional_part(tensor, end) for end in ("_scale_2", "_global_scale"))
    dtype = value_dtype(tensor.scales[0], checkpoint)
    return small_floats(tensor, dtype, factor=factor, divisor=divisor)


def small_floats(
    tensor: LogicalTensor,
    dtype: str,
    *,
    factor: StoredTensor | None = None,
    divisor: StoredTensor | None = None,
) -> SmallFloats:
    """Of a tensor whose first scale is that of its blocks. Raises UndecodableError."""
    packed, scales, bits = tensor.parts[0], tensor.scales[0], int(tensor.dtype[-1])
    check_stored(packed, dtypes=("uint8", "int8"))
    check_stored(scales, dtypes=("uint8", EXPONENTS, "float8_e4m3fn"))
    scale_dtype = EXPONENTS if scales.dtype == "uint8" else scales.dtype
    stored = *packed.shape[:-1], packed.shape[-1] * 8 // bits
    group = 16 if scale_dtype == "float8_e4m3fn" else 32
    check_shape(scales, (*stored[:-1], stored[-1] // group))
    for each in (factor, divisor):
        if each is not None:
            check_stored(each)
            check_shape(each, (), (1,))
    transposed = is_transposed(tensor, stored)
    return SmallFloats(
        *(stored, transposed, packed, scales, scale_dtype),
        bits=bits,
        dtype=dtype,
        factor=factor,
        divisor=divisor,
    )
