"""Double quantization: the scales of a matrix rounded to 8 bits, as bitsandbytes 0.50 `functional.py` does.

Codes of 256 values in blocks of 256 (Dettmers et al. 2023, arXiv:2305.14314), less their mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilm.formats.tensor_io import Array

NESTED_BLOCK = 256


@dataclass(frozen=True)
class RoundedScales:
    """Scales in double quantization: uint8 codes, a float32 scale for each block of them, and their mean."""

    codes: Array
    scales: Array
    mean: float

    @staticmethod
    def of(scales: Array) -> RoundedScales:
        """The nearest ones of float32 ``scales`` (n,)."""
        mean = float(scales.mean(dtype=np.float64).astype(np.float32))
        starts = np.arange(0, len(scales), NESTED_BLOCK)
        centred = scales - np.float32(mean)
        extents = np.maximum.reduceat(np.abs(centred), starts)
        shares = (
            centred / np.repeat(np.where(extents == 0, 1, extents), NESTED_BLOCK)[: len(scales)]
        )
        above = np.searchsorted(DYNAMIC_VALUES, shares).clip(1, 255)
        nearer = shares - DYNAMIC_VALUES[above - 1] <= DYNAMIC_VALUES[above] - shares
        return RoundedScales((above - nearer).astype(np.uint8), extents, mean)

    def values(self) -> Array:
        """What they stand for, (n,)."""
        return scale_values(self.codes, DYNAMIC_VALUES, self.scales, self.mean)


def scale_values(
    codes: Array, values: Array, scales: Array, mean: float, block: int = NESTED_BLOCK
) -> Array:
    """(n,) uint8 codes of 256 float32 ``values``, times the scale of their block, plus their mean."""
    of_code = np.repeat(scales, block)[: len(codes)]
    decoded: Array = values[codes] * of_code + np.float32(mean)
    return decoded


def _dynamic_values() -> Array:
    """The 256 values of bitsandbytes' 8-bit type (`create_dynamic_map`; Dettmers 2015, arXiv:1511.04561).

    Of seven powers of ten, from 1e-6 to 1, each has twice as many numbers as the one before, on both sides
    of 0; and 0 and 1. To the bit as torch.linspace has them: from both ends, each rounded once to float32.
    """
    first, positive = np.float32(0.1), []
    for i in range(7):
        number = np.arange(2**i + 1)
        step = np.float64((np.float32(1) - first) / np.float32(2**i))
        bounds = np.where(
            number < (2**i + 1) // 2,
            np.float64(first) + step * number,
            1 - step * (2**i - number),
        ).astype(np.float32)
        positive.append((bounds[:-1] + bounds[1:]) / 2 * np.float32(10.0 ** (i - 6)))
    numbers = np.concatenate(positive)
    return np.sort(np.concatenate((-numbers, numbers, [0, 1]))).astype(np.float32)


DYNAMIC_VALUES = _dynamic_values()
