"""The safetensors header: names, dtypes, shapes and byte ranges, read and written.

Format (https://github.com/huggingface/safetensors#format): 8 bytes little-endian header length N,
N bytes of JSON, then the data. Unlike the library, this reader imports neither torch nor numpy, and
its errors name the tensor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from minilm.dtypes import BITS, SAFETENSORS_NAMES, storage_bytes
from minilm.errors import FormatError
from minilm.formats.checks import check_name, check_shape, is_size, open_regular
from minilm.formats.header import Header, StoredTensor
from minilm.formats.json_file import MAX_JSON_BYTES, parse_object
from minilm.safe_text import short_repr

# The library's limit is 100 MB; no file is known to need a tenth of this.
MAX_HEADER_BYTES = MAX_JSON_BYTES
MAX_DTYPE_LENGTH = 64

REMEDY = "the file is truncated or is not safetensors"


def read_header(path: Path) -> Header:
    """Read and check the header of ``path``. Raises FormatError or OSError."""
    with open_regular(path) as (stream, size):
        return parse(stream, size, path)


def parse(stream: BinaryIO, size: int, path: Path) -> Header:
    """The header of a file of ``size`` bytes; ``path`` is the file of its tensors."""
    prefix = stream.read(8)
    if len(prefix) < 8:
        raise _error(path, f"{size} bytes", "at least 8 bytes of header length")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise _error(path, f"header length {length}", f"at most {MAX_HEADER_BYTES}")
    if 8 + length > size:
        raise _error(path, f"a header of {length} bytes in a file of {size}", "a whole file")
    entries = parse_object(path, stream.read(length), strict=True, remedy=REMEDY)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _error(path, "__metadata__ that is not an object of strings", "strings")
    data_bytes = size - 8 - length
    return Header(_tensors(path, entries, 8 + length, data_bytes), metadata, data_bytes)


def make_header(tensors: Iterable[StoredTensor], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON of a header for tensors stored contiguously in this order.

    Metadata is sorted: the same content gives the same bytes, which the library does not ensure.
    """
    safetensors_dtypes = {dtype: name for name, dtype in SAFETENSORS_NAMES.items()}
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for tensor in tensors:
        end = position + storage_bytes(tensor.count, tensor.dtype)
        entries[tensor.name] = {
            "dtype": safetensors_dtypes[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # aligns the data
    return len(text).to_bytes(8, "little") + text


def _tensors(
    path: Path, entries: dict[str, Any], data_start: int, data_size: int
) -> tuple[StoredTensor, ...]:
    ranges: list[tuple[int, int, StoredTensor]] = []
    for name, entry in entries.items():
        fields = entry if isinstance(entry, dict) else {}
        stored_dtype, shape, offsets = (
            fields.get(key) for key in ("dtype", "shape", "data_offsets")
        )
        if not isinstance(stored_dtype, str) or len(stored_dtype) > MAX_DTYPE_LENGTH:
            raise _error(
                path, f"tensor {short_repr(name)} without a dtype", "dtype, shape and data_offsets"
            )
        if not isinstance(shape, list):
            raise _error(
                path, f"tensor {short_repr(name)} with shape {short_repr(shape)}", "a list"
            )
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_size, offsets)):
            raise _error(
                path,
                f"tensor {short_repr(name)} with offsets {short_repr(offsets)}",
                "two whole numbers",
            )
        sizes = check_shape(path, name, shape)
        size = offsets[1] - offsets[0]
        dtype = SAFETENSORS_NAMES.get(stored_dtype, stored_dtype)
        offset = data_start + offsets[0]
        tensor = StoredTensor(check_name(path, name), dtype, sizes, size, offset, path)
        # An unknown dtype is reported as it is; its size cannot be checked.
        if tensor.dtype in BITS and size * 8 != tensor.count * BITS[tensor.dtype]:
            raise _error(
                path,
                f"tensor {short_repr(name)} of {size} bytes",
                f"{tensor.count * BITS[tensor.dtype] / 8:g} for {stored_dtype} {list(shape)}",
            )
        ranges.append((offsets[0], offsets[1], tensor))
    ranges.sort(key=lambda item: item[:2])
    position = 0
    for begin, end, tensor in ranges:
        if begin != position or end < begin:
            raise _error(
                path, f"tensor {short_repr(tensor.name)} at byte {begin}", f"byte {position}"
            )
        position = end
    if position != data_size:
        raise _error(path, f"{data_size} bytes of data", f"{position}, as the header says")
    return tuple(tensor for _, _, tensor in ranges)


def _error(path: Path, got: str, expected: str) -> FormatError:
    return FormatError(path, got, expected, REMEDY)
