"""The safetensors header: names, dtypes, shapes and byte ranges, read and written without a weight.

Format (https://github.com/huggingface/safetensors#format): 8 bytes little-endian header length N,
N bytes of JSON, then the data. The library's own reader loads torch or numpy and its errors do not
name the tensor; a header is small enough to check here, entry by entry.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minilm.dtypes import BITS, SAFETENSORS_NAMES, storage_bytes
from minilm.errors import FormatError
from minilm.formats.header import Header, StoredTensor

# The limit of the library itself (MAX_HEADER_SIZE in safetensors/src/tensor.rs).
LARGEST_HEADER = 100_000_000


def read_header(path: Path) -> Header:
    """Read and check the header of ``path``. Raises FormatError, or OSError as the file gives it."""
    with path.open("rb") as stream:
        file_size = os.fstat(stream.fileno()).st_size
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise _broken(path, f"{file_size} bytes", "at least 8 bytes of header length")
        length = int.from_bytes(prefix, "little")
        if length > LARGEST_HEADER:
            raise _broken(path, f"header length {length}", f"at most {LARGEST_HEADER}")
        if 8 + length > file_size:
            raise _broken(
                path, f"a header of {length} bytes in a file of {file_size}", "a whole file"
            )
        entries = _parse(path, stream.read(length))
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _broken(path, "__metadata__ that is not an object of strings", "strings")
    data_bytes = file_size - 8 - length
    return Header(_tensors(path, entries, 8 + length, data_bytes), metadata, data_bytes)


def make_header(tensors: Iterable[StoredTensor], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON of a header for tensors stored in this order without gaps.

    The library writes its metadata in an order that changes from run to run; here the same content is
    the same bytes.
    """
    spelled = {name: stored for stored, name in SAFETENSORS_NAMES.items()}
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for tensor in tensors:
        end = position + storage_bytes(tensor.count, tensor.dtype)
        entries[tensor.name] = {
            "dtype": spelled[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8
    return len(text).to_bytes(8, "little") + text


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            raise _broken(path, "a name that occurs twice", "each name once")
        return entries

    try:
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except FormatError:
        raise
    except (ValueError, RecursionError):  # also an integer of too many digits
        raise _broken(path, "a header that is not JSON", "a safetensors file") from None
    if not isinstance(entries, dict):
        raise _broken(path, "a header that is not a JSON object", "a safetensors file")
    return entries


def _tensors(
    path: Path, entries: dict[str, Any], data_start: int, data_size: int
) -> tuple[StoredTensor, ...]:
    placed: list[tuple[int, int, StoredTensor]] = []
    for name, entry in entries.items():
        fields = entry if isinstance(entry, dict) else {}
        stored, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
        if not isinstance(stored, str):
            raise _broken(path, f"tensor {name!r} without a dtype", "dtype, shape and data_offsets")
        if not isinstance(shape, list) or not _are_sizes(shape):
            raise _broken(path, f"tensor {name!r} with shape {shape!r}", "a list of whole numbers")
        if not isinstance(offsets, list) or len(offsets) != 2 or not _are_sizes(offsets):
            raise _broken(path, f"tensor {name!r} with offsets {offsets!r}", "two whole numbers")
        size = offsets[1] - offsets[0]
        dtype = SAFETENSORS_NAMES.get(stored, stored)
        tensor = StoredTensor(name, dtype, tuple(shape), size, data_start + offsets[0], path)
        # A dtype we do not know is reported as it is; only its size cannot be checked.
        if tensor.dtype in BITS and size * 8 != tensor.count * BITS[tensor.dtype]:
            wanted = f"{tensor.count * BITS[tensor.dtype] / 8:g}"
            raise _broken(
                path, f"tensor {name!r} of {size} bytes", f"{wanted} for {stored} {list(shape)}"
            )
        placed.append((offsets[0], offsets[1], tensor))
    placed.sort(key=lambda item: item[:2])
    position = 0
    for begin, end, tensor in placed:
        if begin != position or end < begin:
            raise _broken(path, f"tensor {tensor.name!r} at byte {begin}", f"byte {position}")
        position = end
    if position != data_size:
        raise _broken(path, f"{data_size} bytes of data", f"{position}, as the header says")
    return tuple(tensor for _, _, tensor in placed)


def _are_sizes(values: list[Any]) -> bool:
    return all(type(n) is int and 0 <= n < 2**63 for n in values)


def _broken(path: Path, came: str, expected: str) -> FormatError:
    return FormatError(path, came, expected, "the file is cut short or is not safetensors")
