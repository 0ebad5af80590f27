"""Values of compressed-tensors' pack-quantized: (integer - zero point) * scale.

compressed-tensors 0.20 `compressors/`, pack_quantized, and `quantization/lifecycle/forward.py`; X a layer:

    X.weight_packed int32 (o, i*bits/32), rounded up, the first integer in the lowest bits, with the middle of
                    the range added; up to 0.13, (o, i/n) of n = 32 // bits whole integers a word
    X.weight_scale (o, g)   X.weight_g_idx (i,), the group of each input, where they are out of order
    X.weight_zero_point int32 (o*bits/32, g), packed alike along the outputs, where there are any
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.bit_fields import unpack, unpack_words
from minilm.quantization.checkpoint import Checkpoint, UndecodableError
from minilm.quantization.dequantized import (
    DecodeRows,
    PackedByRows,
    check_shape,
    check_stored,
    is_transposed,
    optional_part,
    read_array,
    read_floats,
    read_groups,
    read_rows,
    rounding_to,
    value_dtype,
)
from minilm.quantization.logical_tensors import LogicalTensor


@dataclass(frozen=True)
class PackedIntegers(PackedByRows):
    """A linear layer's matrix."""

    words: StoredTensor
    scales: StoredTensor
    zeros: StoredTensor | None
    index: StoredTensor | None
    bits: int
    is_dense: bool
    dtype: str

    @staticmethod
    def of(tensor: LogicalTensor, checkpoint: Checkpoint) -> PackedIntegers:
        """Raises UndecodableError."""
        words, scales = tensor.parts[0], tensor.scales[0]
        zeros, index = (optional_part(tensor, ending) for ending in ("_zero_point", "_g_idx"))
        check_stored(words, dtypes=("int32",))
        check_stored(scales)
        bits = int(tensor.dtype.removeprefix("int"))
        if len(words.shape) != 2 or len(tensor.shape) != 2:
            raise UndecodableError(f"{words.name} of shape {list(words.shape)}")
        outputs = words.shape[0]
        stored = outputs, tensor.count // outputs
        is_dense = words.shape[1] == -(-stored[1] * bits // 32)

        def packed(count: int) -> int:
            return -(-count * bits // 32) if is_dense else -(-count // (32 // bits))

        check_shape(words, (outputs, packed(stored[1])))
        groups = scales.shape[-1] if len(scales.shape) == 2 else 1
        check_shape(scales, (outputs, groups), *([(1,), (1, 1), ()] if groups == 1 else []))
        if zeros is not None:
            check_stored(zeros, dtypes=("int32", "int8"))
            by_words = packed(outputs), groups
            check_shape(zeros, by_words if zeros.dtype == "int32" else scales.shape)
        if index is not None:
            check_stored(index, dtypes=("int32",))
            check_shape(index, stored[1:])
        elif stored[1] % groups:
            raise UndecodableError(f"{groups} groups for {stored[1]} inputs")
        return PackedIntegers(
            *(stored, is_transposed(tensor, stored), words, scales, zeros, index),
            bits=bits,
            is_dense=is_dense,
            dtype=value_dtype(scales, checkpoint),
        )

    def open_rows(self) -> DecodeRows:
        outputs, inputs = self.stored
        scales = read_floats(self.scales)
        scales = np.broadcast_to(scales, (outputs, 1)) if scales.size == 1 else scales
        zeros, rounded = self._zero_points(scales.shape), rounding_to(self.dtype)
        if self.index is None:
            group = np.arange(inputs) // (inputs // scales.shape[1])
        else:
            group = read_groups(self.index, scales.shape[1])

        def decode(first: int, count: int) -> Array:
            chosen = slice(first, first + count)
            words = read_rows(self.words, first, count)
            integers = self._integers(words)[:, :inputs].astype(np.float32)
            integers -= zeros[chosen][:, group]
            return rounded(integers * scales[chosen][:, group])

        return decode

    def _integers(self, words: Array) -> Array:
        return unpack(words, self.bits) if self.is_dense else unpack_words(words, self.bits)

    def _zero_points(self, shape: tuple[int, ...]) -> Array:
        """(o, g), the middle added as it is to the integers."""
        middle = 2 ** (self.bits - 1)
        if self.zeros is None:
            return np.broadcast_to(np.float32(middle), shape)
        stored = read_array(self.zeros)
        if self.zeros.dtype == "int8":
            return np.broadcast_to(stored + np.float32(middle), shape)
        zeros: Array = self._integers(stored.T).T[: shape[0]].astype(np.float32)
        return zeros
