"""Matrices that are decoded while they are read: what the methods' files make, and `values/read.py` reads.

A method's file checks the header of what is stored for one matrix and says how its values follow from it.
They are rounded as the method's own library rounds them, where it loads them into a model to `value_dtype`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from minilm.dtypes import storage_bytes
from minilm.errors import FormatError
from minilm.formats import tensor_io
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.checkpoint import Checkpoint, Shape, UndecodableError
from minilm.quantization.compressed import ACTIVATION_SCALES
from minilm.quantization.logical_tensors import LogicalTensor

# (first element, elements) -> float32 values of a matrix, row by row.
Decode = Callable[[int, int], Array]
# (first row, rows) -> float32 (rows, columns).
DecodeRows = Callable[[int, int], Array]

FLOATS = ("float16", "bfloat16", "float32")
FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
EXPONENTS = "float8_e8m0fnu"
INTEGERS = {"int8": "i1", "uint8": "u1", "int16": "<i2", "int32": "<i4", "uint32": "<u4"}
_NUMPY = {**tensor_io.NUMPY, **INTEGERS} | dict.fromkeys((*FLOAT8, EXPONENTS), "u1")
_OF_ACTIVATIONS = (*ACTIVATION_SCALES, "act_quant_zero_point", "act_per_tensor_scale")
# Of a matrix that is decoded at once because it is transposed.
_ELEMENTS = 1 << 18


class PackedMatrix(ABC):
    """How one matrix is packed. Made of checked headers: reading it takes no more than the file holds."""

    @abstractmethod
    def open(self) -> Decode:
        """Read what is stored. Raises FormatError where the file was cut short."""


@dataclass(frozen=True)
class PackedByRows(PackedMatrix):
    """A matrix (o, i), or a stack of them, that is decoded in whole rows of the shape that is ``stored``.

    Where it ``is_transposed``, the model has (i, o): the Conv1D of GPT-2, the experts of gpt-oss. Then one
    matrix at a time is decoded, and kept in float32.
    """

    stored: Shape
    is_transposed: bool

    @abstractmethod
    def open_rows(self) -> DecodeRows:
        """As `open`; the rows of a stack are numbered through."""

    def open(self) -> Decode:
        rows, (height, width) = self.open_rows(), self.stored[-2:]

        def decode(start: int, count: int) -> Array:
            first, skipped = divmod(start, width)
            values = rows(first, -(-(skipped + count) // width)).reshape(-1)
            return values[skipped : skipped + count]

        @lru_cache(maxsize=1)
        def transposed(number: int) -> Array:
            matrix = np.empty((width, height), np.float32)
            step = max(1, _ELEMENTS // width)
            for row in range(0, height, step):
                some = min(step, height - row)
                matrix[:, row : row + some] = rows(number * height + row, some).T
            return matrix.reshape(-1)

        def decode_transposed(start: int, count: int) -> Array:
            size, end = height * width, start + count
            numbers = range(start // size, -(-end // size))
            parts = [
                transposed(n)[max(0, start - n * size) : min(size, end - n * size)] for n in numbers
            ]
            return parts[0] if len(parts) == 1 else np.concatenate(parts)

        return decode_transposed if self.is_transposed else decode


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
    scale = optional_part(tensor, ending)
    if scale is None:
        raise UndecodableError(f"no {ending.lstrip('._')}")
    return scale


def optional_part(tensor: LogicalTensor, ending: str) -> StoredTensor | None:
    """As `part`, of the values, not of activations; None where there is none."""
    for scale in tensor.scales:
        if scale.name.endswith(ending) and not scale.name.endswith(_OF_ACTIVATIONS):
            return scale
    return None


def is_transposed(tensor: LogicalTensor, stored: Shape) -> bool:
    """Whether the model has the matrices of shape ``stored`` transposed. Raises UndecodableError."""
    if tensor.shape == stored and len(stored) >= 2:
        return False
    if tensor.shape == (*stored[:-2], *stored[:-3:-1]) and len(stored) >= 2:
        return True
    raise UndecodableError(f"stored as {list(stored)} for {list(tensor.shape)}")


def value_dtype(scales: StoredTensor, checkpoint: Checkpoint) -> str:
    """What values become: the dtype that config.json states, else that of their scales, else bfloat16."""
    dtypes = (checkpoint.dtype, scales.dtype, "bfloat16")
    return next(dtype for dtype in dtypes if dtype in FLOATS)


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


def read_rows(tensor: StoredTensor, first: int, count: int) -> Array:
    """As `read_array`, (count, n) of the rows of a tensor (..., n), those of a stack numbered through."""
    assert tensor.offset is not None
    columns = tensor.shape[-1]
    offset = tensor.offset + storage_bytes(first * columns, tensor.dtype)
    return read_array(replace(tensor, shape=(count, columns), offset=offset))


def read_floats(tensor: StoredTensor) -> Array:
    """As float32."""
    return tensor_io.as_float32(read_array(tensor)).reshape(tensor.shape)


def read_groups(index: StoredTensor, groups: int) -> Array:
    """The group of each input where they are out of order. Raises FormatError for one that is not there."""
    numbers = read_array(index)
    lowest, highest = int(numbers.min(initial=0)), int(numbers.max(initial=0))
    if lowest < 0 or highest >= groups:
        got = f"{index.name} with groups {lowest} to {highest}"
        raise FormatError(index.file, got, f"0 to {groups - 1}")
    return numbers


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
