"""The values of stored tensors, read from their files in chunks and decoded with numpy.

Plain reads into a buffer of fixed size: the pages of a memory map would count as resident memory.
Encodings: IEEE 754; bfloat16 is the upper half of a float32; the 8-bit floats are those of the
Open Compute Project, OFP8 and MX (https://www.opencompute.org/documents/ocp-8-bit-floating-point-
specification-ofp8-revision-1-0-2023-12-01-pdf-1), the "fnuz" ones of Noune et al. 2022,
arXiv:2206.02915; ggml's block types are decoded in `gguf_blocks.py`.
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
from minilm.quantization.dequantized import Decode, DequantizedTensor
from minilm.values.gguf_blocks import LAYOUTS, PACKAGE_LAYOUTS, block_values, package_decodes

# Small enough for a chunk's buffers to stay in the L2 and L3 caches.
CHUNK_ELEMENTS = 1 << 18

Codes = npt.NDArray[Any]
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
    """Stored items as numbers: float32 where it holds every value of ``dtype``, else float64.

    64-bit integers beyond 2^53 are rounded. The result may be ``codes`` itself.
    """
    if dtype == "bfloat16":
        float32_codes: Codes = np.left_shift(codes, 16, dtype=np.uint32)
        return float32_codes.view(np.float32)
    if dtype == "float16":
        return codes.view(np.float16).astype(np.float32)
    if dtype.startswith("float8"):
        values: Codes = _float8_values(dtype)[codes]
        return values
    if dtype == "bool":
        is_true: Codes = codes != 0
        return is_true.astype(np.float32)
    if codes.dtype.names:
        return block_values(codes, dtype)
    fits_float32 = dtype == "float32" or codes.dtype.itemsize <= 2
    return codes.astype(np.float32 if fits_float32 else np.float64, copy=False)


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
    unsigned_zero = dtype.endswith("fnuz")  # the code of -0 is the only NaN
    fraction_bits = 2 if "e5m2" in dtype else 3
    bias = (1 << (6 - fraction_bits)) - (not unsigned_zero)
    implicit_bit = 1 << fraction_bits
    sign, exponent = 1 - (codes >> 7) * 2, (codes & 127) >> fraction_bits
    fraction = codes & (implicit_bit - 1)
    normal = np.ldexp(implicit_bit + fraction, exponent - bias - fraction_bits)
    subnormal = np.ldexp(fraction, 1 - bias - fraction_bits)
    values = sign * np.where(exponent == 0, subnormal, normal)
    values[codes == 128 if unsigned_zero else (codes & 127) == 127] = math.nan
    return values.astype(np.float32)
