"""Numbers of their stored codes, by dtype, with numpy.

IEEE 754; bfloat16 is the upper half of a float32; the 8-bit floats are those of the Open Compute Project,
OFP8 and MX (https://www.opencompute.org/documents/ocp-8-bit-floating-point-specification-ofp8-revision-1-0-
2023-12-01-pdf-1), the "fnuz" ones of Noune et al. 2022, arXiv:2206.02915.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[Any]


def decode(codes: Codes, dtype: str) -> Codes:
    """Stored items as numbers: float32 where it holds every value of ``dtype``, else float64.

    64-bit integers beyond 2^53 are rounded. The result may be ``codes`` itself.
    """
    if dtype == "bfloat16":
        float32_codes: Codes = np.left_shift(codes, 16, dtype=np.uint32)
        return float32_codes.view(np.float32)
    if dtype == "float16":
        return codes.view(np.float16).astype(np.float32)
    if dtype.startswith("float8"):
        values: Codes = _float8_values(dtype)[codes]
        return values
    if dtype == "bool":
        is_true: Codes = codes != 0
        return is_true.astype(np.float32)
    fits_float32 = dtype == "float32" or codes.dtype.itemsize <= 2
    return codes.astype(np.float32 if fits_float32 else np.float64, copy=False)


def _float8_values(dtype: str) -> Codes:
    """The values of all 256 codes."""
    codes: Codes = np.arange(256)
    values: Codes
    if dtype == "float8_e5m2":  # the upper half of a float16
        return (codes << 8).astype(np.uint16).view(np.float16).astype(np.float32)
    if dtype == "float8_e8m0fnu":  # powers of two, no sign, no zero
        values = np.ldexp(1.0, codes - 127)
        values[255] = np.nan
        return values.astype(np.float32)
    unsigned_zero = dtype.endswith("fnuz")  # the code of -0 is the only NaN
    fraction_bits = 2 if "e5m2" in dtype else 3
    bias = (1 << (6 - fraction_bits)) - (not unsigned_zero)
    implicit_bit = 1 << fraction_bits
    sign, exponent = 1 - (codes >> 7) * 2, (codes & 127) >> fraction_bits
    fraction = codes & (implicit_bit - 1)
    normal = np.ldexp(implicit_bit + fraction, exponent - bias - fraction_bits)
    subnormal = np.ldexp(fraction, 1 - bias - fraction_bits)
    values = sign * np.where(exponent == 0, subnormal, normal)
    values[codes == 128 if unsigned_zero else (codes & 127) == 127] = math.nan
    return values.astype(np.float32)
