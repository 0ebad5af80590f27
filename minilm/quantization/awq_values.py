"""Values of AWQ's 4 bits: (integer - zero point) * scale; see `gptq_awq.py` for what is stored.

Orders: GPTQModel 7, which took them over from AutoAWQ, `quantization/awq/utils/packing_utils.py`
(`dequantize_gemm`) and `nn_modules/qlinear/gemv_awq.py` (`pack`). GEMV's words are in order, GEMM's are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.bit_fields import unpack
from minilm.quantization.checkpoint import Checkpoint, UndecodableError
from minilm.quantization.dequantized import (
    DecodeRows,
    PackedByRows,
    check_shape,
    check_stored,
    is_transposed,
    part,
    read_array,
    read_floats,
    read_rows,
    rounding_to,
    value_dtype,
)
from minilm.quantization.gptq_awq import padded_groups
from minilm.quantization.logical_tensors import LogicalTensor

_WORD = 8  # integers in an int32
# Of the outputs of a word, the place of each in it, from the lowest bits on.
_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)


@dataclass(frozen=True)
class AwqMatrix(PackedByRows):
    """A linear layer's matrix, stored by inputs (GEMM)."""

    words: StoredTensor
    zeros: StoredTensor
    scales: StoredTensor
    dtype: str

    def open_rows(self) -> DecodeRows:
        words, scales = read_array(self.words), read_floats(self.scales)
        zeros, rounded = _integers(read_array(self.zeros)), rounding_to(self.dtype)
        size = self.stored[1] // len(scales)

        def decode(first: int, count: int) -> Array:
            word = first // _WORD
            integers = _integers(words[:, word : -(-(first + count) // _WORD)])  # i o
            integers = integers[:, first - word * _WORD :][:, :count]
            chosen = slice(first, first + count)
            centred = integers.reshape(-1, size, count).astype(np.float32)
            centred -= zeros[:, None, chosen]
            values = centred * scales[:, None, chosen]
            return rounded(values.reshape(-1, count).T)

        return decode


@dataclass(frozen=True)
class AwqRows(PackedByRows):
    """A linear layer's matrix, stored by outputs (GEMV), in groups of ``size`` inputs."""

    words: StoredTensor
    zeros: StoredTensor
    scales: StoredTensor
    size: int
    dtype: str

    def open_rows(self) -> DecodeRows:
        rounded, groups = rounding_to(self.dtype), self.stored[1] // self.size
        zeros, scales = unpack(read_array(self.zeros), 4), read_floats(self.scales)

        def decode(first: int, count: int) -> Array:
            integers = unpack(read_rows(self.words, first, count), 4).astype(np.float32)
            chosen = slice(first, first + count), slice(groups), None
            centred = integers.reshape(count, groups, -1) - zeros[chosen]
            return rounded((centred * scales[chosen]).reshape(count, -1))

        return decode


def packed_by_awq(tensor: LogicalTensor, checkpoint: Checkpoint) -> PackedByRows:
    """Raises UndecodableError."""
    words, zeros, scales = tensor.parts[0], part(tensor, "qzeros"), part(tensor, "scales")
    if words.dtype != "int32" or tensor.dtype != "int4":
        raise UndecodableError(f"{tensor.dtype} in {words.dtype}")
    check_stored(words, zeros, dtypes=("int32",))
    check_stored(scales)
    dtype = value_dtype(scales, checkpoint)
    gemv, padded = (words.shape[0], words.shape[1] * _WORD), scales.shape[1]
    by_outputs = scales.shape[0] == gemv[0] and zeros.shape == (gemv[0], padded // _WORD)
    if by_outputs and sorted(gemv) == sorted(tensor.shape):
        transposed, size = is_transposed(tensor, gemv), _group_size(gemv[1], padded, checkpoint)
        return AwqRows(gemv, transposed, words, zeros, scales, size=size, dtype=dtype)
    groups, outputs = scales.shape
    check_shape(words, (words.shape[0], outputs // _WORD))
    check_shape(zeros, (groups, outputs // _WORD))
    stored = outputs, words.shape[0]
    if outputs % _WORD or stored[1] % groups:
        raise UndecodableError(f"scales of shape {list(scales.shape)}")
    return AwqMatrix(stored, is_transposed(tensor, stored), words, zeros, scales, dtype)


def _integers(words: Array) -> Array:
    """(n, m) -> (n, 8m) uint8, in the order of the outputs."""
    fields = unpack(words, 4).reshape(len(words), -1, _WORD)
    return fields[..., _PLACES].reshape(len(words), -1)


def _group_size(inputs: int, padded: int, checkpoint: Checkpoint) -> int:
    sizes = [
        size
        for size in (128, 64, 32, inputs)
        if inputs % size == 0 and padded_groups(inputs, size) == padded
    ]
    stated = checkpoint.config.get("group_size", checkpoint.config.get("q_group_size"))
    if stated in sizes:
        sizes = [stated]
    if len(set(sizes)) != 1:
        raise UndecodableError(f"groups of {' or '.join(map(str, sizes))}")
    return sizes[0]
