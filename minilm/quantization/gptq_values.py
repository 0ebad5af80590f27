"""Values of GPTQ: (integer - zero point) * scale; see `gptq_awq.py` for what is stored.

Orders of integers and zero points: GPTQModel 7 `utils/model_dequant.py`, `utils/planar_packing.py` and
`nn_modules/qlinear/__init__.py` (`dequantize_weight`). ``checkpoint_format`` says which: gptq stores zero
points less one, gptq_v2 as they are, gptq_p too, in planes of bits, as 5 to 7 bits always are. Input i is of
the group g_idx[i].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilm.dtypes import BITS
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.bit_fields import unpack
from minilm.quantization.checkpoint import Checkpoint, UndecodableError
from minilm.quantization.dequantized import (
    INTEGERS,
    DecodeRows,
    PackedByRows,
    check_shape,
    check_stored,
    is_transposed,
    optional_part,
    part,
    read_array,
    read_floats,
    read_groups,
    rounding_to,
    value_dtype,
)
from minilm.quantization.logical_tensors import LogicalTensor

# checkpoint_format -> what is added to a stored zero point. AWQ's name is in configurations made of its.
_ZERO_OFFSETS = {"gptq": 1, "gemm": 1, "gptq_v2": 0, "gptq_p": 0}
# Bits of an integer -> those of its planes, the lowest first. 32 integers have a plane after the other.
_PLANES = {3: (2, 1), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1)}


@dataclass(frozen=True)
class GptqMatrix(PackedByRows):
    """A linear layer's matrix; ``planes`` are empty where the bits of an integer are together."""

    words: StoredTensor
    zeros: StoredTensor
    scales: StoredTensor
    index: StoredTensor | None
    bits: int
    planes: tuple[int, ...]
    zero_offset: int
    dtype: str

    @staticmethod
    def of(tensor: LogicalTensor, checkpoint: Checkpoint) -> GptqMatrix:
        """Raises UndecodableError."""
        words, zeros, scales = tensor.parts[0], part(tensor, "qzeros"), part(tensor, "scales")
        index = optional_part(tensor, "g_idx")
        check_stored(words, dtypes=tuple(INTEGERS))
        check_stored(zeros, dtypes=(words.dtype,))
        check_stored(scales)
        stated = checkpoint.config.get("checkpoint_format") or checkpoint.config.get("format")
        if stated is not None and stated not in _ZERO_OFFSETS:
            raise UndecodableError(f"checkpoint_format {stated!r:.40}")
        bits, word = int(tensor.dtype.removeprefix("int")), BITS[words.dtype]
        is_planar = bits in _PLANES and (bits != 3 or stated == "gptq_p")
        groups, outputs = scales.shape
        inputs = words.shape[0] * word // bits
        is_whole = bits in (2, 4, 8) or (words.shape[0] % bits == 0 == outputs * bits % word)
        if bits not in (2, 4, 8, *_PLANES) or not is_whole:
            raise UndecodableError(f"{bits} bits in qweight of shape {list(words.shape)}")
        check_shape(zeros, (groups, -(-outputs * bits // word)))
        if index is not None:
            check_stored(index, dtypes=("int32",))
            check_shape(index, (inputs,))
        elif inputs % groups:
            raise UndecodableError(f"{groups} groups for {inputs} inputs")
        stored = outputs, inputs
        planes = _PLANES[bits] if is_planar else ()
        zero_offset = 0 if is_planar else _ZERO_OFFSETS[stated or "gptq"]
        return GptqMatrix(
            *(stored, is_transposed(tensor, stored), words, zeros, scales, index),
            bits=bits,
            planes=planes,
            zero_offset=zero_offset,
            dtype=value_dtype(scales, checkpoint),
        )

    def open_rows(self) -> DecodeRows:
        groups, outputs = self.scales.shape
        words, scales = read_array(self.words), read_floats(self.scales)
        zeros = self._integers(read_array(self.zeros))[:, :outputs] + np.uint8(self.zero_offset)
        zeros &= np.uint8(2**self.bits - 1)
        index = read_groups(self.index, groups) if self.index else np.zeros(1)
        if not index.any():  # as exllamav2's `ext.py` reads a g_idx of zeros
            index = np.arange(self.stored[1]) // -(-self.stored[1] // groups)
        rounded = rounding_to(self.dtype)

        def decode(first: int, count: int) -> Array:
            chosen = slice(first, first + count)
            integers = self._integers(words[:, chosen].T).astype(np.float32)
            integers -= zeros[:, chosen].T[:, index]
            return rounded(integers * scales[:, chosen].T[:, index])

        return decode

    def _integers(self, words: Array) -> Array:
        """(..., n) words -> (..., m) uint8."""
        if not self.planes:
            return unpack(words, self.bits)
        planes = words.reshape(*words.shape[:-1], -1, self.bits)
        integers, row = np.uint8(0), 0
        for width in self.planes:
            fields = unpack(planes[..., row : row + width], width)
            integers = integers | fields << np.uint8(row)
            row += width
        return np.asarray(integers).reshape(*words.shape[:-1], -1)
