"""The values of stored tensors, read from their files piece by piece into buffers of fixed size.

Plain reads and no memory map: pages of a map would count as resident memory. Decodes with numpy
alone. Codes: IEEE 754; bfloat16 is the upper half of a float32; the 8-bit floats are those of the
Open Compute Project, OFP8 and MX (https://www.opencompute.org/documents/ocp-8-bit-floating-point-
specification-ofp8-revision-1-0-2023-12-01-pdf-1), the "fnuz" ones of Noune et al. 2022,
arXiv:2206.02915; ggml's blocks are in `blocks.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from minilm.dtypes import GGUF_BLOCKS
from minilm.errors import FormatError
from minilm.formats.header import StoredTensor
from minilm.values.gguf_blocks import LAYOUTS, block_values

# Elements of a piece: its buffers lie in the second and third level of cache.
PIECE = 1 << 18

Codes = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

# How one item lies in the file. Items of the ggml types are blocks.
ITEMS: dict[str, np.dtype[Any]] = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<u2"),
    "bfloat16": np.dtype("<u2"),
    "float8_e4m3fn": np.dtype("u1"),
    "float8_e5m2": np.dtype("u1"),
    "float8_e4m3fnuz": np.dtype("u1"),
    "float8_e5m2fnuz": np.dtype("u1"),
    "float8_e8m0fnu": np.dtype("u1"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint64": np.dtype("<u8"),
    "uint32": np.dtype("<u4"),
    "uint16": np.dtype("<u2"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("u1"),
    **LAYOUTS,
}


def why_unread(tensor: StoredTensor) -> str | None:
    """Why the values of ``tensor`` cannot be read; None if they can."""
    item = ITEMS.get(tensor.dtype)
    if item is None:
        return f"{tensor.dtype} is not decoded"
    if tensor.offset is None or tensor.file is None:
        return "not stored in one piece"
    elements = _elements_an_item(tensor.dtype)
    whole_items = rows_and_columns(tensor)[1] % elements == 0
    expected = tensor.count // elements * item.itemsize if whole_items else None
    if tensor.nbytes != expected:
        return f"{tensor.nbytes} bytes do not fit its shape"
    return None


def rows_and_columns(tensor: StoredTensor) -> tuple[int, int]:
    """The tensor as a matrix: rows are the runs along the last dimension; a vector is one row."""
    columns = tensor.shape[-1] if tensor.shape else 1
    return (tensor.count // columns if columns else 0), columns


def pieces(tensor: StoredTensor, size: int = PIECE) -> Iterator[tuple[int, int]]:
    """(first element, elements) of every piece: whole rows, or parts of one row that is too long."""
    rows, columns = rows_and_columns(tensor)
    if columns <= size:
        step = size // max(columns, 1) * columns
        for start in range(0, tensor.count, max(step, 1)):
            yield start, min(step, tensor.count - start)
        return
    for row in range(rows):
        for start in range(0, columns, size):
            yield row * columns + start, min(size, columns - start)


class Reader:
    """Reads pieces of one tensor into one buffer: a result is valid until the next read.

    One for each thread. ``tensor`` must be readable (`why_unread`) and no piece longer than ``size``.
    """

    def __init__(self, tensor: StoredTensor, size: int = PIECE) -> None:
        assert tensor.file is not None
        assert tensor.offset is not None
        self.tensor, self.offset = tensor, tensor.offset
        self.item = ITEMS[tensor.dtype]
        self.elements_an_item = _elements_an_item(tensor.dtype)
        items = min(-(-size // self.elements_an_item), tensor.nbytes // self.item.itemsize)
        self.buffer = np.empty(items, self.item)
        self.stream = tensor.file.open("rb", buffering=0)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def codes(self, start: int, count: int) -> Codes:
        """The stored items of ``count`` elements from ``start`` on."""
        first = start // self.elements_an_item
        view = self.buffer[: count // self.elements_an_item]
        wanted = view.view(np.uint8).data
        self.stream.seek(self.offset + first * self.item.itemsize)
        done = 0
        while done < len(wanted):
            step = self.stream.readinto(wanted[done:])
            if not step:
                raise FormatError(
                    self.tensor.file,
                    f"the end of the file within tensor {self.tensor.name!r}",
                    f"{self.tensor.nbytes} bytes of it",
                    "the file was cut short while it was read",
                )
            done += step
        return view

    def values(self, start: int, count: int) -> Codes:
        """The same elements as numbers; see `decode`."""
        return decode(self.codes(start, count), self.tensor.dtype)


def decode(codes: Codes, dtype: str) -> Codes:
    """Stored items as numbers: float32 where it holds every value of ``dtype``, else float64.

    64-bit integers beyond 2^53 are rounded. The result may be ``codes`` itself.
    """
    if dtype == "bfloat16":
        halves: Codes = np.left_shift(codes, 16, dtype=np.uint32)
        return halves.view(np.float32)
    if dtype == "float16":
        return codes.view(np.float16).astype(np.float32)
    if dtype.startswith("float8"):
        values: Codes = _float8_values(dtype)[codes]
        return values
    if dtype == "bool":
        truths: Codes = codes != 0
        return truths.astype(np.float32)
    if codes.dtype.names:
        return block_values(codes, dtype)
    narrow = dtype == "float32" or codes.dtype.itemsize <= 2
    return codes.astype(np.float32 if narrow else np.float64, copy=False)


def decode64(codes: Codes, dtype: str, out: Floats | None = None) -> Floats:
    """The same as float64, in the beginning of ``out`` if it is given."""
    with np.errstate(invalid="ignore"):  # a signalling NaN stays a NaN
        values = decode(codes, dtype)
        if out is None:
            return values.astype(np.float64)
        np.copyto(out[: values.size], values)
        return out[: values.size]


def _elements_an_item(dtype: str) -> int:
    return GGUF_BLOCKS[dtype][0] if dtype in LAYOUTS else 1


def _float8_values(dtype: str) -> Codes:
    """The values of all 256 codes."""
    codes: Codes = np.arange(256)
    values: Codes
    if dtype == "float8_e5m2":  # the upper half of a float16
        return (codes << 8).astype(np.uint16).view(np.float16).astype(np.float32)
    if dtype == "float8_e8m0fnu":  # powers of two, no sign, no zero
        values = np.ldexp(1.0, codes - 127)
        values[255] = np.nan
        return values.astype(np.float32)
    unsigned_zero = dtype.endswith("fnuz")  # and where -0 would be is the only NaN
    fraction_bits = 2 if "e5m2" in dtype else 3
    bias = (1 << (6 - fraction_bits)) - (not unsigned_zero)
    one = 1 << fraction_bits
    sign, exponent, fraction = 1 - (codes >> 7) * 2, (codes & 127) // one, codes % one
    normal = np.ldexp(one + fraction, exponent - bias - fraction_bits)
    subnormal = np.ldexp(fraction, 1 - bias - fraction_bits)
    values = sign * np.where(exponent == 0, subnormal, normal)
    values[codes == 128 if unsigned_zero else (codes & 127) == 127] = math.nan
    return values.astype(np.float32)
