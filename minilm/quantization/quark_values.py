"""Values of Quark: (integer - zero point) * scale in float32; see `quark.py` for what is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minilm.formats import number_codes
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.checkpoint import Checkpoint, UndecodableError
from minilm.quantization.dequantized import (
    Decode,
    PackedMatrix,
    check_shape,
    check_stored,
    part,
    read_array,
    read_floats,
)
from minilm.quantization.logical_tensors import LogicalTensor
from minilm.quantization.quark import IN_ORDER, WORD

# Which integer is in the lowest four bits of a word, which in the next, and so on.
_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True)
class QuarkMatrix(PackedMatrix):
    """A linear layer's matrix; ``dtype`` is that of its integers or floats, and FP8 has no ``zero``."""

    values: StoredTensor
    scale: StoredTensor
    zero: StoredTensor | None
    dtype: str
    in_order: bool

    @staticmethod
    def of(tensor: LogicalTensor, checkpoint: Checkpoint) -> QuarkMatrix:
        """Raises UndecodableError."""
        values, scale = tensor.parts[0], part(tensor, ".weight_scale")
        check_stored(values, dtypes=("int32", "int8", "uint8", "float8_e4m3fn", "float8_e5m2"))
        check_stored(scale)
        outputs, inputs = tensor.shape
        groups = scale.shape[0] if len(scale.shape) == 2 else 0
        is_packed = values.dtype == "int32"
        stored = [inputs, outputs] if groups else [outputs, inputs]
        if is_packed:
            stored[1] = -(-stored[1] // WORD)
        check_shape(values, tuple(stored))
        check_shape(scale, (), (outputs,), (groups, outputs))
        zero = None
        if not values.dtype.startswith("float8"):
            zero = part(tensor, ".weight_zero_point")
            check_stored(zero, dtypes=(values.dtype,))
            *leading, last = scale.shape or (0,)
            packed = (*leading, -(-last // WORD) if is_packed else last)
            check_shape(zero, packed if scale.shape else ())
        if groups and inputs % groups:
            raise UndecodableError(f"{groups} groups for {inputs} inputs")
        return QuarkMatrix(values, scale, zero, tensor.dtype, tensor.method == IN_ORDER)

    def open(self) -> Decode:
        at_value, scale = self._integers(self.values), read_floats(self.scale)
        at_zero = self._integers(self.zero) if self.zero else None
        is_grouped, dtype = scale.ndim == 2, self.values.dtype
        inputs = self.values.shape[0]
        if not is_grouped:
            inputs = self.values.shape[1] * (WORD if dtype == "int32" else 1)

        def decode(start: int, count: int) -> Array:
            row, column = np.divmod(np.arange(start, start + count), inputs)
            stored = at_value((column, row) if is_grouped else (row, column))
            values = number_codes.decode(stored, dtype) if at_zero is None else stored
            of_scale: tuple[Array, ...] = (row,) if scale.ndim else ()
            if is_grouped:
                of_scale = column // (inputs // len(scale)), row
            if at_zero is not None:
                values = values.astype(np.float32) - at_zero(of_scale)
            scaled: Array = values.astype(np.float32) * scale[of_scale]
            return scaled

        return decode

    def _integers(self, tensor: StoredTensor) -> Callable[[tuple[Array, ...]], Array]:
        """Indices -> what is there; of words the integer, the last index being that of integers."""
        words = read_array(tensor)
        if tensor.dtype != "int32":
            return lambda index: words[index]
        order = range(WORD) if self.in_order else _ORDER
        shifts = 4 * np.argsort(order).astype(np.int32)
        sign = 8 if self.dtype == "int4" else 0

        def at(index: tuple[Array, ...]) -> Array:
            if index:
                word, number = np.divmod(index[-1], WORD)
                of_word: tuple[Array, ...] = (*index[:-1], word)
                integers = words[of_word] >> shifts[number] & 15
            else:
                integers = words & 15
            signed: Array = (integers ^ sign) - sign
            return signed

        return at
