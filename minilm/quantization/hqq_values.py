"""Values of HQQ: (integer - zero) * scale, hqq 0.2.8 `core/quantize.py` and `core/bitpack.py`.

The matrix is read as r rows of c columns, of another shape than its own: groups are those rows or columns.

    X.W_q    uint8 (r/n, c) of n = 1, 2, 4 or 8 integers of 8/n bits, the first rows in the highest bits
             int32 (r/10, c), rounded up, of 10 integers of 3 bits, the first rows from bit 27 on
    X.scale, X.zero   (r, 1), (1, c), or one of each
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.checkpoint import Checkpoint, UndecodableError
from minilm.quantization.dequantized import (
    Decode,
    PackedMatrix,
    PackedRows,
    check_shape,
    check_stored,
    part,
    read_floats,
    rounding_to,
)
from minilm.quantization.logical_tensors import LogicalTensor

_BITS_IN_INT32, _IN_INT32 = 3, 10


@dataclass(frozen=True)
class HqqMatrix(PackedMatrix):
    """A linear layer's matrix."""

    codes: PackedRows
    scale: StoredTensor
    zero: StoredTensor

    @staticmethod
    def of(tensor: LogicalTensor, checkpoint: Checkpoint) -> HqqMatrix:
        """Raises UndecodableError."""
        words, scale, zero = tensor.parts[0], part(tensor, ".scale"), part(tensor, ".zero")
        check_stored(words, dtypes=("uint8", "int32"))
        check_stored(scale, zero)
        if any(each.name.endswith("scale2") for each in tensor.scales):
            raise UndecodableError("a second scale, as SINQ has")
        if len(words.shape) != 2 or not words.count or tensor.count % words.shape[1]:
            raise UndecodableError(f"W_q of shape {list(words.shape)} for {list(tensor.shape)}")
        columns = words.shape[1]
        rows = tensor.count // columns
        for each in (scale, zero):
            check_shape(each, (rows, 1), (1, columns), ())
        return HqqMatrix(_packed_rows(words, rows), scale, zero)

    def open(self) -> Decode:
        codes, columns = self.codes.open(), self.codes.tensor.shape[1]
        scale, zero = read_floats(self.scale), read_floats(self.zero)
        rounded = rounding_to(self.scale.dtype)

        def decode(start: int, count: int) -> Array:
            row, column = np.divmod(np.arange(start, start + count), columns)
            centred = rounded(codes(row, column).astype(np.float32) - _at(zero, row, column))
            return rounded(centred * _at(scale, row, column))

        return decode


def _packed_rows(words: StoredTensor, rows: int) -> PackedRows:
    stored_rows = words.shape[0]
    if words.dtype == "int32":
        shifts = range(_BITS_IN_INT32 * (_IN_INT32 - 1), -1, -_BITS_IN_INT32)
        if stored_rows == -(-rows // _IN_INT32):
            return PackedRows(words, rows, _BITS_IN_INT32, tuple(shifts))
    elif rows in (stored_rows * number for number in (1, 2, 4, 8)):
        bits = 8 * stored_rows // rows
        return PackedRows(words, rows, bits, tuple(range(8 - bits, -1, -bits)))
    raise UndecodableError(f"W_q of shape {list(words.shape)} for {rows} rows")


def _at(values: Array, row: Array, column: Array) -> Array:
    """Of (r, 1), (1, c) or a single value, those of some elements."""
    if values.size == 1:
        return values.reshape(())
    chosen: Array = values[:, 0][row] if values.shape[1] == 1 else values[0][column]
    return chosen
