"""Values of quanto: optimum-quanto 0.2.7 `tensor/qbytes.py`, `tensor/qbits.py` and `tensor/packed.py`.

8 bits        X.weight._data int8 or float8 (o, i)  ._scale (o, 1) or one
              value = scale * data
2 and 4 bits  X.weight._data uint8, the integers as r rows of c columns, of which each byte has 4 or 2, the
              first rows in the lowest bits; r is rounded up   ._scale, ._shift (r, 1)
              value = scale * data - shift; where shifts are integers, scale * (data - shift)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilm.formats import number_codes
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.checkpoint import Checkpoint, UndecodableError
from minilm.quantization.dequantized import (
    FLOAT8,
    FLOATS,
    Decode,
    PackedMatrix,
    PackedRows,
    check_shape,
    check_stored,
    part,
    read_array,
    read_floats,
    rounding_to,
)
from minilm.quantization.logical_tensors import LogicalTensor


@dataclass(frozen=True)
class QuantoBytes(PackedMatrix):
    """A matrix in 8 bits."""

    data: StoredTensor
    scale: StoredTensor

    def open(self) -> Decode:
        data, scale = read_array(self.data).reshape(-1), read_floats(self.scale).reshape(-1)
        rounded, columns = rounding_to(self.scale.dtype), self.data.shape[1]

        def decode(start: int, count: int) -> Array:
            values = number_codes.decode(data[start : start + count], self.data.dtype)
            row = np.arange(start, start + count) // columns
            return rounded(values * (scale[row] if scale.size > 1 else scale))

        return decode


@dataclass(frozen=True)
class QuantoBits(PackedMatrix):
    """A matrix in 2 or 4 bits."""

    codes: PackedRows
    scale: StoredTensor
    shift: StoredTensor

    def open(self) -> Decode:
        codes, columns = self.codes.open(), self.codes.tensor.shape[1]
        rounded, scale = rounding_to(self.scale.dtype), read_floats(self.scale).reshape(-1)
        shift, is_float = read_floats(self.shift).reshape(-1), self.shift.dtype in FLOATS

        def decode(start: int, count: int) -> Array:
            row, column = np.divmod(np.arange(start, start + count), columns)
            integers = codes(row, column).astype(np.float32)
            if is_float:
                return rounded(rounded(integers * scale[row]) - shift[row])
            return rounded((integers - shift[row]) * scale[row])

        return decode


def packed_by_quanto(tensor: LogicalTensor, checkpoint: Checkpoint) -> PackedMatrix:
    """Raises UndecodableError."""
    data, scale = tensor.parts[0], part(tensor, "._scale")
    check_stored(data, dtypes=("int8", "uint8", *FLOAT8))
    check_stored(scale)
    if len(data.shape) != 2 or not data.count or tensor.count % data.shape[1]:
        raise UndecodableError(f"_data of shape {list(data.shape)} for {list(tensor.shape)}")
    if data.dtype != "uint8":
        check_shape(data, tensor.shape)
        check_shape(scale, (data.shape[0], 1), ())
        return QuantoBytes(data, scale)
    shift, rows = part(tensor, "._shift"), tensor.count // data.shape[1]
    check_stored(shift, dtypes=("int8", "uint8", *FLOATS))
    for each in (scale, shift):
        check_shape(each, (rows, 1))
    bits = next((bits for bits in (4, 2) if data.shape[0] == -(-rows * bits // 8)), None)
    if bits is None:
        raise UndecodableError(f"_data of shape {list(data.shape)} for {rows} rows")
    return QuantoBits(PackedRows(data, rows, bits, tuple(range(0, 8, bits))), scale, shift)
