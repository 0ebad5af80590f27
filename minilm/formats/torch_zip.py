"""The header of a torch.save checkpoint (torch 1.6 and later), from its zip directory and data.pkl.

Format: a zip of uncompressed entries NAME/data.pkl (see torch_pickle), NAME/data/KEY (a storage's raw
values each) and a few small ones (torch/serialization.py, `_save`). Storages are not read, and no
code in the file is executed.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from minilm.dtypes import BITS
from minilm.errors import FormatError
from minilm.formats.checks import check_shape, is_size, open_regular
from minilm.formats.header import Header, StoredTensor
from minilm.formats.torch_contents import find_model
from minilm.formats.torch_pickle import MAX_PICKLE_BYTES, PickledTensor, read_pickle
from minilm.safe_text import short_repr

# The zip directory takes some 90 bytes a storage.
MAX_DIRECTORY_BYTES = 4_000_000


def read_header(path: Path) -> Header:
    """Read and check the header of ``path``. Raises FormatError or OSError."""
    with open_regular(path) as (stream, size):
        return parse(stream, size, path)


def parse(stream: BinaryIO, size: int, path: Path) -> Header:
    """The header of a file of ``size`` bytes; ``path`` is the file of its tensors."""
    _require_zip(path, stream.read(32))
    try:
        bounded = _BoundedStream(stream, path)
        with zipfile.ZipFile(cast("BinaryIO", bounded)) as archive:
            bounded.max_bytes = MAX_PICKLE_BYTES
            entries = _entries(path, archive)
            root = _root(path, entries)
            pickled = _read_entry(path, archive, entries[f"{root}/data.pkl"], MAX_PICKLE_BYTES)
            byte_order = entries.get(f"{root}/byteorder")
            if byte_order and _read_entry(path, archive, byte_order, 16) != b"little":
                raise FormatError(path, "big-endian numbers", "little-endian ones")
    except FormatError:
        raise
    except _ZIP_ERRORS as error:
        got = f"a broken zip ({type(error).__name__})"
        raise FormatError(path, got, "a file that torch.save wrote", "it is truncated") from None
    return build_header(path, pickled, StorageLocator(stream, size, path, root, entries))


def build_header(path: Path, pickled: bytes, locator: StorageLocator) -> Header:
    """The header of the model in ``pickled``, the contents of data.pkl."""
    state_dict, metadata = find_model(path, read_pickle(path, pickled))
    tensors = []
    shared = []
    first_names: dict[tuple[Any, ...], str] = {}
    for name, view in state_dict.items():
        tensor, region = _locate_tensor(path, name, view, locator)
        tensors.append(tensor)
        first_name = first_names.setdefault(region, name)
        if first_name != name and tensor.count:
            shared.append((name, first_name))
    locator.check_overlaps()
    data_bytes = sum(storage.size for storage in locator.storages.values())
    return Header(tuple(tensors), metadata, data_bytes, tuple(shared))


_ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,  # a compression method or version that zipfile lacks
    RuntimeError,  # encrypted
    EOFError,
    ValueError,
    OverflowError,
    LookupError,
    struct.error,
    zlib.error,
)


class _BoundedStream:
    """The stream methods that zipfile uses, with a limit on the bytes of one read."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self.stream, self.path = stream, path
        self.max_bytes = MAX_DIRECTORY_BYTES
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, count: int = -1) -> bytes:
        if count > self.max_bytes:
            expected = f"at most {self.max_bytes}"
            raise FormatError(self.path, f"a zip directory of {count} bytes", expected)
        return self.stream.read(count if count >= 0 else self.max_bytes)

    def seekable(self) -> bool:
        return True


def _require_zip(path: Path, first_bytes: bytes) -> None:
    if first_bytes.startswith(b"PK\x03\x04"):
        return
    expected, remedy = "a zip that torch.save wrote", "save it again with torch.save or safetensors"
    # Protocol 2, then torch's magic number as a LONG1.
    if first_bytes.startswith(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"):
        raise FormatError(path, "the format of torch before 1.6", expected, remedy)
    if first_bytes.startswith(b"\x80"):
        raise FormatError(path, "a bare pickle", expected, remedy)
    raise FormatError(path, "no zip", expected, "the file is truncated or is not a checkpoint")


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    entries = {info.filename: info for info in archive.infolist()}
    if len(entries) < len(archive.infolist()):
        raise FormatError(path, "a zip entry that occurs twice", "each name once")
    return entries


def _root(path: Path, entries: dict[str, zipfile.ZipInfo]) -> str:
    """The folder that contains all entries."""
    root = next(iter(entries), "").partition("/")[0]
    if f"{root}/constants.pkl" in entries:
        raise FormatError(path, "a TorchScript program", "a state dict", "save its state_dict()")
    if f"{root}/data.pkl" not in entries:
        raise FormatError(path, "a zip without data.pkl", "a file that torch.save wrote")
    return root


def _read_entry(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int
) -> bytes:
    name, compression = short_repr(info.filename), info.compress_type
    is_readable = compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if info.file_size > max_bytes or not is_readable:
        got = f"{name} of {info.file_size} bytes, compression {compression}"
        raise FormatError(path, got, f"at most {max_bytes}, stored or deflated")
    with archive.open(info) as entry:
        return entry.read(max_bytes + 1)


@dataclass(frozen=True)
class _StorageLocation:
    """A storage's bytes in the file; ``offset`` is None if they are compressed."""

    size: int
    offset: int | None


class StorageLocator:
    """Finds each storage's bytes, once."""

    def __init__(
        self,
        stream: BinaryIO,
        size: int,
        path: Path,
        root: str,
        entries: dict[str, zipfile.ZipInfo],
    ) -> None:
        self.stream, self.size, self.path = stream, size, path
        self.root, self.entries = root, entries
        self.storages: dict[str, _StorageLocation] = {}

    def find(self, key: str) -> _StorageLocation:
        """The location of the storage ``key``."""
        if key not in self.storages:
            name = f"{self.root}/data/{key}"
            if name not in self.entries:
                raise FormatError(
                    self.path, f"no {short_repr(name)} in it", "every storage of its tensors"
                )
            self.storages[key] = self._locate(name, self.entries[name])
        return self.storages[key]

    def check_overlaps(self) -> None:
        """Raise FormatError where two storages share bytes, which no writer produces."""
        end = 0
        ranges = [(s.offset, s.size) for s in self.storages.values() if s.offset is not None]
        for offset, size in sorted(ranges):
            if offset < end:
                raise FormatError(self.path, "storages that overlap", "disjoint ones")
            end = offset + size

    def _locate(self, name: str, info: zipfile.ZipInfo) -> _StorageLocation:
        self.stream.seek(info.header_offset)
        local_header = self.stream.read(30)
        is_local_header = len(local_header) == 30 and local_header.startswith(b"PK\x03\x04")
        if not is_local_header or info.flag_bits & 1:  # or it is encrypted
            raise FormatError(
                self.path, f"{short_repr(name)} is not where the zip says", "a whole zip"
            )
        name_length, extra_length = struct.unpack("<HH", local_header[26:30])
        offset = info.header_offset + 30 + name_length + extra_length
        if offset + info.compress_size > self.size:
            raise FormatError(self.path, f"{short_repr(name)} past the end", "a whole file")
        if info.compress_type != zipfile.ZIP_STORED:
            # Deflate compresses at most by this factor.
            if info.file_size > 1032 * info.compress_size:
                raise FormatError(
                    self.path, f"{short_repr(name)} that is a zip bomb", "its true size"
                )
            return _StorageLocation(info.file_size, None)
        if info.file_size != info.compress_size:
            raise FormatError(self.path, f"{short_repr(name)} of two sizes", "one size")
        return _StorageLocation(info.file_size, offset)


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
    storage = locator.find(view.storage.key)
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
