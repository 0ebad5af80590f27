"""The tensors of a torch file as a Header: each a view, checked to be within its storage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from minilm.dtypes import BITS
from minilm.errors import FormatError
from minilm.formats.checks import check_shape, is_size
from minilm.formats.header import Header, StoredTensor
from minilm.formats.torch_contents import NamedTensors
from minilm.formats.torch_objects import PickledTensor, Storage
from minilm.safe_text import short_repr


@dataclass(frozen=True)
class StorageLocation:
    """A storage's bytes in the file; ``offset`` is None if they are compressed."""

    size: int
    offset: int | None


class StorageLocator(Protocol):
    """Finds the bytes of each storage; ``storages`` are those that were found, by key."""

    storages: dict[str, StorageLocation]

    def find(self, storage: Storage) -> StorageLocation:
        """The location of a storage. Raises FormatError where there is none."""


def build_header(path: Path, named: NamedTensors, locator: StorageLocator) -> Header:
    """The header of a model's tensors. Raises FormatError."""
    tensors = []
    shared = []
    first_names: dict[tuple[Any, ...], str] = {}
    for name, view in named.tensors.items():
        tensor, region = _locate_tensor(path, name, view, locator)
        tensors.append(tensor)
        first_name = first_names.setdefault(region, name)
        if first_name != name and tensor.count:
            shared.append((name, first_name))
    _check_overlaps(path, locator)
    data_bytes = sum(storage.size for storage in locator.storages.values())
    return Header(tuple(tensors), named.metadata, data_bytes, tuple(shared), prefix=named.prefix)


def _check_overlaps(path: Path, locator: StorageLocator) -> None:
    """Raise FormatError where two storages share bytes, which no writer produces."""
    end = 0
    ranges = [(s.offset, s.size) for s in locator.storages.values() if s.offset is not None]
    for offset, size in sorted(ranges):
        if offset < end:
            raise FormatError(path, "storages that overlap", "disjoint ones")
        end = offset + size


def _locate_tensor(
    path: Path, name: str, view: PickledTensor, locator: StorageLocator
) -> tuple[StoredTensor, tuple[Any, ...]]:
    """The tensor, checked to be within its storage, and a key equal for equal views."""
    shape, stride, offset = view.shape, view.stride, view.offset
    if not isinstance(shape, (tuple, list)) or not isinstance(stride, (tuple, list)):
        raise FormatError(path, f"tensor {short_repr(name)} without a shape", "a shape and strides")
    sizes = check_shape(path, name, shape)
    strides = tuple(n for n in stride[: len(sizes)] if is_size(n))
    if len(stride) != len(sizes) or len(strides) != len(sizes) or not is_size(offset):
        raise FormatError(
            path, f"tensor {short_repr(name)} with strides {short_repr(stride)}", "valid ones"
        )
    if view.storage is None:
        return StoredTensor(name, view.dtype, sizes, 0, None, path), (name,)
    storage = locator.find(view.storage)
    region = (view.storage.key, view.dtype, offset, sizes, strides)
    if view.dtype not in BITS:  # reported as it is; its size cannot be checked
        return StoredTensor(name, view.dtype or "unknown", sizes, storage.size, None, path), region
    width = BITS[view.dtype] // 8
    count = math.prod(sizes)
    last = sum((size - 1) * step for size, step in zip(sizes, strides, strict=True))
    if count and (offset + last + 1) * width > storage.size:
        end = (offset + last + 1) * width
        got = f"tensor {short_repr(name)} up to byte {end} of {storage.size}"
        raise FormatError(path, got, "a view within its storage")
    file_offset = None
    if storage.offset is not None and _is_contiguous(sizes, strides):
        file_offset = storage.offset + offset * width
    return StoredTensor(name, view.dtype, sizes, count * width, file_offset, path), region


def _is_contiguous(sizes: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
