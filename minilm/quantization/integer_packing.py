"""Symmetric integers as compressed-tensors 0.20 `compressors/` (naive_quantized, pack_quantized) stores them.

X a linear layer:

    int8   X.weight int8 (o, i)            X.weight_scale (o, 1)
    int4   X.weight_packed int32 (o, i/8)  X.weight_scale (o, i/group)  X.weight_shape int64 (2,)
           column 8n + k is in bits 4k to 4k + 3 of word n, with 8 added

Shapes: o outputs, i inputs, g groups of inputs that share a scale, s of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from minilm.errors import FormatError
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array, as_float32
from minilm.quantization.bit_fields import unpack
from minilm.quantization.compressed import METHOD
from minilm.quantization.packing import (
    Format,
    Packing,
    Rounded,
    bfloat16_bits,
    grouped,
    stored_tensor,
    to_bfloat16,
)

# Shares of the scale that reaches the largest weight: of these, the one with the least squared error.
_SCALE_SHARES = np.linspace(1.0, 0.7, 13, dtype=np.float32)


class IntegerPacking(Packing):
    """compressed-tensors: symmetric integers, a bfloat16 scale a group."""

    zero = 0

    def __init__(self, bits: Literal[4, 8], group_size: int = 0) -> None:
        self.bits, self.group_size = bits, group_size
        self.format: Format = "int8" if bits == 8 else "int4"
        self.largest = 2 ** (bits - 1) - 1

    def round(self, weight: Array) -> Rounded:
        groups = grouped(weight, self.group_size)  # o g s
        scales = self.scales(groups)
        return Rounded(self.codes(groups, scales).reshape(weight.shape), scales)

    def scales(self, groups: Array, importance: Array | None = None) -> Array:
        """(..., s) -> (...,): the bfloat16 scale of each group with the least squared error.

        ``importance`` (s,) weighs the errors of the inputs.
        """
        extent = np.abs(groups).max(-1) / self.largest
        best, least = np.ones_like(extent), np.full_like(extent, np.inf)
        for share in _SCALE_SHARES:
            scales = to_bfloat16(extent * share)
            scales[scales == 0] = 1  # a group of zeros
            errors = np.square(self.codes(groups, scales) * scales[..., None] - groups)
            total = errors.sum(-1) if importance is None else errors @ importance
            better = total < least
            best[better], least[better] = scales[better], total[better]
        chosen: Array = best
        return chosen

    def codes(self, groups: Array, scales: Array) -> Array:
        """(..., s) weights by scales (...,) -> (..., s) int8."""
        codes = np.clip(np.rint(groups / scales[..., None]), -self.largest - 1, self.largest)
        integers: Array = codes.astype(np.int8)
        return integers

    def values(self, rounded: Rounded) -> Array:
        codes = grouped(rounded.codes.astype(np.float32), self.group_size)
        values: Array = (codes * rounded.scales[..., None]).reshape(rounded.codes.shape)
        return values

    def tensors(self, weight: str, shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        o, i = shape
        scales = stored_tensor(f"{weight}_scale", "bfloat16", (o, i // (self.group_size or i)))
        if self.bits == 8:
            return stored_tensor(weight, "int8", (o, i)), scales
        return (
            stored_tensor(f"{weight}_packed", "int32", (o, i // 8)),
            scales,
            stored_tensor(f"{weight}_shape", "int64", (2,)),
        )

    def pack(self, weight: str, rounded: Rounded) -> dict[str, Array]:
        scales = bfloat16_bits(rounded.scales)
        if self.bits == 8:
            return {weight: rounded.codes, f"{weight}_scale": scales}
        return {
            f"{weight}_packed": pack_int4(rounded.codes),
            f"{weight}_scale": scales,
            f"{weight}_shape": np.array(rounded.codes.shape, np.int64),
        }

    def unpack(self, weight: str, shape: tuple[int, ...], arrays: Mapping[str, Array]) -> Rounded:
        scales = as_float32(arrays[f"{weight}_scale"])
        if self.bits == 8:
            return Rounded(arrays[weight], scales)
        if tuple(arrays[f"{weight}_shape"].tolist()) != shape:
            raise FormatError(weight, "another weight_shape", str(list(shape)))
        return Rounded(unpack_int4(arrays[f"{weight}_packed"]), scales)

    def config(self, ignored: Iterable[str]) -> dict[str, Any]:
        weights = {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": True,
            "strategy": "group" if self.group_size else "channel",
            "group_size": self.group_size or None,
            "dynamic": False,
        }
        layout = "int-quantized" if self.bits == 8 else "pack-quantized"
        group = {"targets": ["Linear"], "weights": weights, "format": layout}
        return {
            "quant_method": METHOD,
            "format": layout,
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": list(ignored),
        }


def pack_int4(codes: Array) -> Array:
    """Codes of -8 to 7, (o, i) with i a multiple of 8 -> int32 (o, i/8)."""
    nibbles = (codes + 8).astype(np.uint8)
    pairs = nibbles[:, ::2] | nibbles[:, 1::2] << 4
    return np.ascontiguousarray(pairs).view("<i4")


def unpack_int4(words: Array) -> Array:
    """int32 (o, i/8) -> codes of -8 to 7, int8 (o, i)."""
    return unpack(words, 4).astype(np.int8) - 8
