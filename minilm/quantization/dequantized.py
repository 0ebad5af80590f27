"""Matrices that are decoded while they are read: what the methods' files make, and `values/read.py` reads.

A method's file checks the header of what is stored for one matrix and says how its values follow from it.
They are rounded as the method's own library rounds them: to the dtype of the scales, after each operation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minilm.dtypes import storage_bytes
from minilm.formats import tensor_io
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.checkpoint import UndecodableError
from minilm.quantization.logical_tensors import LogicalTensor

# (first element, elements) -> float32 values of a matrix, row by row.
Decode = Callable[[int, int], Array]

FLOATS = ("float16", "bfloat16", "float32")
INTEGERS = {"int8": "i1", "uint8": "u1", "int16": "<i2", "int32": "<i4"}
_NUMPY = {**tensor_io.NUMPY, **INTEGERS} | dict.fromkeys(
    ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"), "u1"
)


class PackedMatrix(ABC):
    """How one matrix is packed. Made of checked headers: reading it takes no more than the file holds."""

    @abstractmethod
    def open(self) -> Decode:
        """Read what is stored. Raises FormatError where the file was cut short."""


@dataclass(frozen=True)
class DequantizedTensor(StoredTensor):
    """A tensor of the model that stands for those of which it is ``packed``.

    ``dtype`` is the method's name, ``nbytes`` those of its values in float32; it has no bytes of its own.
    """

    packed: PackedMatrix | None = None


@dataclass(frozen=True)
class PackedRows:
    """Integers of (``count``, columns), several rows of which share a row of ``tensor``.

    Of the rows in order, the first as many as it has are at the first of ``shifts``, and so on.
    """

    tensor: StoredTensor
    count: int
    bits: int
    shifts: tuple[int, ...]

    def open(self) -> Callable[[Array, Array], Array]:
        """(rows, columns) -> the integers there."""
        words = read_array(self.tensor)
        words = words.view(f"<u{words.itemsize}")
        shifts = np.array(self.shifts, words.dtype)
        mask = words.dtype.type(2**self.bits - 1)

        def codes(rows: Array, columns: Array) -> Array:
            parts, stored_rows = np.divmod(rows, len(words))
            integers: Array = words[stored_rows, columns] >> shifts[parts] & mask
            return integers

        return codes


def part(tensor: LogicalTensor, ending: str) -> StoredTensor:
    """The scale of ``tensor`` whose name ends so. Raises UndecodableError."""
    for scale in tensor.scales:
        if scale.name.endswith(ending):
            return scale
    raise UndecodableError(f"no {ending.lstrip('._')}")


def check_shape(tensor: StoredTensor, *shapes: tuple[int, ...]) -> None:
    """Raises UndecodableError for any other shape."""
    if tensor.shape not in shapes:
        raise UndecodableError(f"{tensor.name} of shape {list(tensor.shape)}")


def check_stored(*tensors: StoredTensor, dtypes: tuple[str, ...] = FLOATS) -> None:
    """Raises UndecodableError for tensors of other dtypes, or whose bytes cannot be read."""
    for tensor in tensors:
        if tensor.dtype not in dtypes:
            raise UndecodableError(f"{tensor.name} in {tensor.dtype}")
        is_whole = tensor.nbytes == storage_bytes(tensor.count, tensor.dtype)
        if tensor.file is None or tensor.offset is None or not is_whole:
            raise UndecodableError(f"{tensor.name} is not contiguous in the file")


def read_array(tensor: StoredTensor) -> Array:
    """Its integers, its floats, or the bits of bfloat16 and 8-bit floats; checked by `check_stored`."""
    return tensor_io.read(tensor, _NUMPY)


def read_floats(tensor: StoredTensor) -> Array:
    """As float32."""
    return tensor_io.as_float32(read_array(tensor)).reshape(tensor.shape)


def rounding_to(dtype: str) -> Callable[[Array], Array]:
    """float32 -> the nearest values of a floating ``dtype``, as float32."""
    if dtype == "float16":
        return lambda values: values.astype(np.float16).astype(np.float32)
    return _to_bfloat16 if dtype == "bfloat16" else lambda values: values


def _to_bfloat16(values: Array) -> Array:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    kept: Array = np.where(np.isnan(values), values, nearest.view(np.float32))
    return kept
