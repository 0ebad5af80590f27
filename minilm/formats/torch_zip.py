"""Checkpoints of torch.save (since torch 1.6) from their zip directory and data.pkl alone.

Format: a zip with uncompressed entries NAME/data.pkl (see torch_pickle), NAME/data/KEY (one storage
each, raw numbers) and small ones beside them (torch/serialization.py, `_save`). No number of a storage
is read, and nothing in the file is run.
"""

from __future__ import annotations

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
from minilm.formats.torch_contents import model_of
from minilm.formats.torch_pickle import MAX_PICKLE_BYTES, PickledTensor, read_pickle
from minilm.safe_text import short_repr

# The zip directory takes some 90 bytes a storage.
MAX_DIRECTORY_BYTES = 4_000_000


def read_header(path: Path) -> Header:
    """Read and check the zip checkpoint ``path``. Raises FormatError, or OSError as the file gives it."""
    with open_regular(path) as (stream, size):
        return parse(stream, size, path)


def parse(stream: BinaryIO, size: int, path: Path) -> Header:
    """The header of a file of ``size`` bytes; ``path`` is where its tensors will say they are."""
    _require_zip(path, stream.read(32))
    try:
        bounded = _Bounded(stream, path)
        with zipfile.ZipFile(cast("BinaryIO", bounded)) as archive:
            bounded.largest = MAX_PICKLE_BYTES
            entries = _entries(path, archive)
            root = _root(path, entries)
            raw = _small(path, archive, entries, f"{root}/data.pkl", MAX_PICKLE_BYTES)
            order = f"{root}/byteorder"
            if order in entries and _small(path, archive, entries, order, 16) != b"little":
                raise FormatError(path, "big-endian numbers", "little-endian ones")
    except FormatError:
        raise
    except _ZIP_ERRORS as error:
        got = f"a broken zip ({type(error).__name__})"
        raise FormatError(path, got, "a file that torch.save wrote", "it is cut short") from None
    return describe(path, raw, Storages(stream, size, path, root, entries))


def describe(path: Path, pickled: bytes, storages: Storages) -> Header:
    """The header that a data.pkl makes of the storages beside it."""
    named, metadata = model_of(path, read_pickle(path, pickled))
    tensors = []
    shared = []
    first: dict[tuple[Any, ...], str] = {}
    for name, view in named.items():
        tensor, region = _checked(path, name, view, storages)
        tensors.append(tensor)
        earlier = first.setdefault(region, name)
        if earlier != name and tensor.count:
            shared.append((name, earlier))
    storages.check_apart()
    data_bytes = sum(place.size for place in storages.known.values())
    return Header(tuple(tensors), metadata, data_bytes, tuple(shared))


_ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,  # a compression or a version that zipfile lacks
    RuntimeError,  # encrypted
    EOFError,
    ValueError,
    OverflowError,
    LookupError,
    struct.error,
    zlib.error,
)


class _Bounded:
    """The part of a stream that zipfile uses; it hands out no more than a directory takes at once."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self.stream, self.path = stream, path
        self.largest = MAX_DIRECTORY_BYTES
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, count: int = -1) -> bytes:
        if count > self.largest:
            expected = f"at most {self.largest}"
            raise FormatError(self.path, f"a zip directory of {count} bytes", expected)
        return self.stream.read(count if count >= 0 else self.largest)

    def seekable(self) -> bool:
        return True


def _require_zip(path: Path, beginning: bytes) -> None:
    if beginning.startswith(b"PK\x03\x04"):
        return
    expected, remedy = "a zip that torch.save wrote", "save it again with torch.save or safetensors"
    # Protocol 2, then torch's magic number as a LONG1.
    if beginning.startswith(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"):
        raise FormatError(path, "the format of torch before 1.6", expected, remedy)
    if beginning.startswith(b"\x80"):
        raise FormatError(path, "a bare pickle", expected, remedy)
    raise FormatError(path, "no zip", expected, "the file is cut short or is no checkpoint")


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    entries = {info.filename: info for info in archive.infolist()}
    if len(entries) < len(archive.infolist()):
        raise FormatError(path, "a zip entry that occurs twice", "each name once")
    return entries


def _root(path: Path, entries: dict[str, zipfile.ZipInfo]) -> str:
    """The folder in the zip that everything lies in."""
    root = next(iter(entries), "").partition("/")[0]
    if f"{root}/constants.pkl" in entries:
        raise FormatError(path, "a TorchScript program", "a state dict", "save its state_dict()")
    if f"{root}/data.pkl" not in entries:
        raise FormatError(path, "a zip without data.pkl", "a file that torch.save wrote")
    return root


def _small(
    path: Path,
    archive: zipfile.ZipFile,
    entries: dict[str, zipfile.ZipInfo],
    name: str,
    largest: int,
) -> bytes:
    info = entries[name]
    if info.file_size > largest or info.compress_type not in (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
    ):
        got = f"{short_repr(name)} of {info.file_size} bytes, compression {info.compress_type}"
        raise FormatError(path, got, f"at most {largest}, stored or deflated")
    with archive.open(info) as entry:
        return entry.read(largest + 1)


@dataclass(frozen=True)
class _Place:
    """A storage in the file: its bytes, and where they begin if they lie there uncompressed."""

    size: int
    offset: int | None


class Storages:
    """Where storages lie, each looked up once."""

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
        self.known: dict[str, _Place] = {}

    def find(self, key: str) -> _Place:
        """The place of the storage ``key``."""
        if key not in self.known:
            name = f"{self.root}/data/{key}"
            if name not in self.entries:
                raise FormatError(
                    self.path, f"no {short_repr(name)} in it", "every storage it names"
                )
            self.known[key] = self._place(name, self.entries[name])
        return self.known[key]

    def check_apart(self) -> None:
        """Two storages that share bytes: no writer does that."""
        end = 0
        places = [place for place in self.known.values() if place.offset is not None]
        for place in sorted(places, key=lambda place: (place.offset or 0, place.size)):
            assert place.offset is not None
            if place.offset < end:
                raise FormatError(self.path, "storages that overlap", "each apart")
            end = place.offset + place.size

    def _place(self, name: str, info: zipfile.ZipInfo) -> _Place:
        self.stream.seek(info.header_offset)
        local = self.stream.read(30)
        if len(local) < 30 or not local.startswith(b"PK\x03\x04") or info.flag_bits & 1:
            raise FormatError(
                self.path, f"{short_repr(name)} is not where the zip says", "a whole zip"
            )
        name_length, extra_length = struct.unpack("<HH", local[26:30])
        offset = info.header_offset + 30 + name_length + extra_length
        if offset + info.compress_size > self.size:
            raise FormatError(self.path, f"{short_repr(name)} past the end", "a whole file")
        if info.compress_type != zipfile.ZIP_STORED:
            # A byte of deflate stands for at most 1032.
            if info.file_size > 1032 * info.compress_size:
                raise FormatError(
                    self.path, f"{short_repr(name)} that is a zip bomb", "its true size"
                )
            return _Place(info.file_size, None)
        if info.file_size != info.compress_size:
            raise FormatError(self.path, f"{short_repr(name)} of two sizes", "one size")
        return _Place(info.file_size, offset)


def _checked(
    path: Path, name: str, pickled: PickledTensor, storages: Storages
) -> tuple[StoredTensor, tuple[Any, ...]]:
    """The tensor, if all of it lies within its storage, and what tells its bytes apart."""
    shape, stride, offset = pickled.shape, pickled.stride, pickled.offset
    if not isinstance(shape, (tuple, list)) or not isinstance(stride, (tuple, list)):
        raise FormatError(path, f"tensor {short_repr(name)} without a shape", "a shape and strides")
    sizes = check_shape(path, name, shape)
    steps = tuple(n for n in stride[: len(sizes)] if is_size(n))
    if len(stride) != len(sizes) or len(steps) != len(sizes) or not is_size(offset):
        raise FormatError(
            path, f"tensor {short_repr(name)} with strides {short_repr(stride)}", "its own"
        )
    if pickled.storage is None:
        return StoredTensor(name, pickled.dtype, sizes, 0, None, path), (name,)
    place = storages.find(pickled.storage.key)
    region = (pickled.storage.key, pickled.dtype, offset, sizes, steps)
    if pickled.dtype not in BITS:  # reported as it is; its bytes cannot be checked
        return StoredTensor(name, pickled.dtype or "unknown", sizes, place.size, None, path), region
    width = BITS[pickled.dtype] // 8
    tensor = StoredTensor(name, pickled.dtype, sizes)
    last = sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if tensor.count and (offset + last + 1) * width > place.size:
        got = f"tensor {short_repr(name)} up to byte {(offset + last + 1) * width} of {place.size}"
        raise FormatError(path, got, "a view within its storage")
    in_one_piece = place.offset is not None and _is_contiguous(sizes, steps)
    begin = (place.offset or 0) + offset * width if in_one_piece else None
    nbytes = tensor.count * width
    return StoredTensor(name, pickled.dtype, sizes, nbytes, begin, path), region


def _is_contiguous(sizes: tuple[int, ...], steps: tuple[int, ...]) -> bool:
    expected = 1
    for size, step in zip(reversed(sizes), reversed(steps), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True
