"""The values of stored tensors, read from their files in chunks and decoded with numpy.

Plain reads into a buffer of fixed size: the pages of a memory map would count as resident memory.
ggml's block types are decoded in `gguf_blocks.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from minilm.dtypes import GGUF_BLOCKS
from minilm.errors import FormatError
from minilm.formats import number_codes
from minilm.formats.header import StoredTensor
from minilm.formats.number_codes import Codes
from minilm.quantization.dequantized import Decode, DequantizedTensor
from minilm.values.gguf_blocks import LAYOUTS, PACKAGE_LAYOUTS, block_values, package_decodes

# Small enough for a chunk's buffers to stay in the L2 and L3 caches.
CHUNK_ELEMENTS = 1 << 18

Floats = npt.NDArray[np.float64]

# The numpy dtype of a stored item: an element, or a block of a ggml type.
ITEM_DTYPES: dict[str, np.dtype[Any]] = {
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
    **PACKAGE_LAYOUTS,
}


def why_unread(tensor: StoredTensor) -> str | None:
    """Why the values of ``tensor`` cannot be read; None if they can."""
    if isinstance(tensor, DequantizedTensor):
        return None
    item = ITEM_DTYPES.get(tensor.dtype)
    if item is None:
        return f"{tensor.dtype} is not decoded"
    if tensor.dtype in PACKAGE_LAYOUTS and not package_decodes(tensor.dtype):
        return f"{tensor.dtype} is not decoded without a newer gguf: pip install -U 'minilm[gguf]'"
    if tensor.offset is None or tensor.file is None:
        return "not contiguous in the file"
    elements = _elements_per_item(tensor.dtype)
    whole_items = matrix_shape(tensor)[1] % elements == 0
    expected = tensor.count // elements * item.itemsize if whole_items else None
    if tensor.nbytes != expected:
        return f"{tensor.nbytes} bytes do not fit its shape"
    return None


def item_dtype(tensor: StoredTensor) -> np.dtype[Any]:
    """The numpy dtype of what a `Reader` of ``tensor`` reads: of a packed one the values, decoded."""
    return ITEM_DTYPES["float32" if isinstance(tensor, DequantizedTensor) else tensor.dtype]


def matrix_shape(tensor: StoredTensor) -> tuple[int, int]:
    """(rows, columns) with all dimensions but the last flattened to rows; a vector is one row."""
    columns = tensor.shape[-1] if tensor.shape else 1
    return (tensor.count // columns if columns else 0), columns


def chunks(tensor: StoredTensor, size: int = CHUNK_ELEMENTS) -> Iterator[tuple[int, int]]:
    """(first element, elements) of each chunk: whole rows, or a part of a row longer than ``size``."""
    rows, columns = matrix_shape(tensor)
    if columns <= size:
        step = size // max(columns, 1) * columns
        for start in range(0, tensor.count, max(step, 1)):
            yield start, min(step, tensor.count - start)
        return
    for row in range(rows):
        for start in range(0, columns, size):
            yield row * columns + start, min(size, columns - start)


class Reader:
    """Reads chunks of one tensor into one buffer: a result is valid until the next read.

    Not shared by threads. ``tensor`` must be readable (`why_unread`) and no chunk longer than ``size``.
    """

    def __init__(self, tensor: StoredTensor, size: int = CHUNK_ELEMENTS) -> None:
        self.tensor, self.item = tensor, item_dtype(tensor)
        self.unpack: Decode | None = None
        if isinstance(tensor, DequantizedTensor):
            assert tensor.packed is not None
            with np.errstate(all="ignore"):
                self.unpack = tensor.packed.open()
            return
        assert tensor.file is not None
        assert tensor.offset is not None
        self.offset = tensor.offset
        self.elements_per_item = _elements_per_item(tensor.dtype)
        items = min(-(-size // self.elements_per_item), tensor.nbytes // self.item.itemsize)
        self.buffer = np.empty(items, self.item)
        self.stream = tensor.file.open("rb", buffering=0)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        if self.unpack is None:
            self.stream.close()

    def codes(self, start: int, count: int) -> Codes:
        """The stored items of ``count`` elements from ``start`` on."""
        if self.unpack is not None:
            with np.errstate(all="ignore"):
                return self.unpack(start, count)
        first = start // self.elements_per_item
        items = self.buffer[: count // self.elements_per_item]
        buffer = items.view(np.uint8).data
        self.stream.seek(self.offset + first * self.item.itemsize)
        position = 0
        while position < len(buffer):
            num_bytes = self.stream.readinto(buffer[position:])
            if not num_bytes:
                raise FormatError(
                    self.tensor.file,
                    f"the end of the file within tensor {self.tensor.name!r}",
                    f"{self.tensor.nbytes} bytes of it",
                    "the file was truncated while it was read",
                )
            position += num_bytes
        return items

    def values(self, start: int, count: int) -> Codes:
        """The same elements decoded, see `decode`."""
        return decode(self.codes(start, count), self.tensor.dtype)


def decode(codes: Codes, dtype: str) -> Codes:
    """Stored items as numbers, those of ggml's blocks too; see `number_codes.decode`."""
    return block_values(codes, dtype) if codes.dtype.names else number_codes.decode(codes, dtype)


def decode64(codes: Codes, dtype: str, out: Floats | None = None) -> Floats:
    """Stored items as float64, in the first elements of ``out`` if given."""
    with np.errstate(invalid="ignore"):  # a signalling NaN stays a NaN
        values = decode(codes, dtype)
        if out is None:
            return values.astype(np.float64)
        np.copyto(out[: values.size], values)
        return out[: values.size]


def _elements_per_item(dtype: str) -> int:
    return GGUF_BLOCKS.get(dtype, (1, 0))[0]
