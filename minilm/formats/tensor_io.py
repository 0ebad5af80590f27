"""Tensors one at a time: read at their offset in a file, and the one writer of safetensors files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm import files
from minilm.dtypes import BITS, storage_bytes
from minilm.errors import FormatError
from minilm.formats.checks import open_regular
from minilm.formats.header import StoredTensor
from minilm.formats.safetensors import MAX_HEADER_BYTES, make_header

Array = NDArray[Any]

CHUNK = 2**24  # bytes
# In the metadata of a file that is hashed: SHA-256 over the whole file, with NO_HASH in its own place.
HASH, NO_HASH = "file_sha256", "0" * 64
# torch's names; numpy has no bfloat16, and nothing here needs its values.
NUMPY = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}


def read(tensor: StoredTensor, dtypes: Mapping[str, str] = NUMPY) -> Array:
    """Its values, in the shape of the header, if its dtype is one of ``dtypes``: else FormatError."""
    if tensor.dtype not in dtypes or tensor.offset is None or tensor.file is None:
        raise FormatError(
            tensor.file or tensor.name,
            f"{tensor.name} in {tensor.dtype}",
            f"weights in {', '.join(dtypes)}",
        )
    values = np.fromfile(tensor.file, dtypes[tensor.dtype], tensor.count, offset=tensor.offset)
    if len(values) != tensor.count:
        raise FormatError(tensor.file, f"{tensor.name} cut short", "a whole file")
    return values.reshape(tensor.shape)


def as_float32(values: Array) -> Array:
    """The same numbers in float32; ``values`` may be of bfloat16 as `read` has it."""
    if values.dtype == NUMPY["bfloat16"]:  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(values, dtype=np.float32)


def write(
    path: Path,
    plan: Mapping[StoredTensor, Callable[[], Array]],
    metadata: Mapping[str, str],
    *,
    hashed: bool = False,
) -> None:
    """Write one safetensors file atomically, each tensor when its turn comes: one is in memory at a time.

    An array has the shape of its tensor, and its bits; of which numpy type, says nothing. ``hashed`` adds
    HASH to the metadata, for `check_hash`. Raises OSError.
    """
    if hashed:
        digest = hashlib.sha256()
        for part in _parts(plan, {**metadata, HASH: NO_HASH}):
            digest.update(part)
        metadata = {**metadata, HASH: digest.hexdigest()}
    with files.atomic_writer(path) as stream:
        for part in _parts(plan, metadata):
            stream.write(part)


def check_hash(path: Path) -> None:
    """Raises FormatError unless every byte of a file that was written ``hashed`` is as it was written."""
    digest = hashlib.sha256()
    with open_regular(path) as (stream, _):
        prefix = stream.read(8)
        header = stream.read(min(int.from_bytes(prefix, "little"), MAX_HEADER_BYTES))
        stored = re.search(rb'"%s":"([0-9a-f]{64})"' % HASH.encode(), header)
        start, end = stored.span(1) if stored else (0, 0)
        digest.update(prefix + header[:start] + NO_HASH.encode() + header[end:])
        while block := stream.read(CHUNK):
            digest.update(block)
    if stored is None or digest.hexdigest() != stored[1].decode():
        raise FormatError(path, "not the bytes that were written", "those of its SHA-256")


def _parts(
    plan: Mapping[StoredTensor, Callable[[], Array]], metadata: Mapping[str, str]
) -> Iterator[bytes | memoryview]:
    """The bytes of a file in order: the header, then rows of each tensor.

    The widest elements come first, then the order of names, so that every tensor is aligned.
    """
    ordered = _ordered(plan)
    yield make_header(ordered, metadata)
    for tensor in ordered:
        values = plan[tensor]()
        assert values.shape == tensor.shape, (tensor.name, values.shape, tensor.shape)
        assert values.nbytes == storage_bytes(tensor.count, tensor.dtype), tensor.name
        for rows in chunks(values):
            yield np.ascontiguousarray(rows).data


def file_bytes(tensors: Sequence[StoredTensor], metadata: Mapping[str, str]) -> int:
    """How many bytes `write` makes of ``tensors``."""
    data = sum(storage_bytes(tensor.count, tensor.dtype) for tensor in tensors)
    return len(make_header(_ordered(tensors), metadata)) + data


def _ordered(tensors: Iterable[StoredTensor]) -> list[StoredTensor]:
    return sorted(tensors, key=lambda tensor: (-BITS[tensor.dtype], tensor.name))


def chunks(values: Array) -> Iterator[Array]:
    """Rows of a tensor, or its one value, some megabytes at a time: a copy of them is as small."""
    values = np.atleast_1d(values)
    count = max(1, CHUNK // max(1, values.nbytes // max(1, len(values))))
    for start in range(0, len(values), count):
        yield values[start : start + count]
