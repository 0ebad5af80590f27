"""The header of a zip that torch wrote (1.6 and later), from its directory and data.pkl.

Format: a zip of uncompressed entries NAME/data.pkl (see torch_pickle), NAME/data/KEY (a storage's raw
values each) and a few small ones (torch/serialization.py, `_save`). TorchScript adds NAME/code and
NAME/constants.pkl with the storages of NAME/constants (torch/csrc/jit/serialization/export_module.cpp);
what torch.export adds is in torch_export.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from minilm.errors import FormatError
from minilm.formats import torch_export, torch_script
from minilm.formats.header import Header
from minilm.formats.json_file import MAX_JSON_BYTES
from minilm.formats.torch_checkpoint import select_model
from minilm.formats.torch_contents import NamedTensors, name_tensors
from minilm.formats.torch_objects import ScriptObject, Storage
from minilm.formats.torch_pickle import MAX_PICKLE_BYTES, read_pickle
from minilm.formats.torch_tensors import StorageLocation, build_header
from minilm.safe_text import short_repr

# Of the pickle, and of the description of an exported program's weights.
MAX_ENTRY_BYTES = max(MAX_PICKLE_BYTES, MAX_JSON_BYTES)

# The zip directory takes some 90 bytes a storage.
MAX_DIRECTORY_BYTES = 4_000_000


def parse(stream: BinaryIO, size: int, path: Path, state_dict: str | None = None) -> Header:
    """The header of a file of ``size`` bytes; ``path`` is the file of its tensors."""
    try:
        bounded = _BoundedStream(stream, path)
        with zipfile.ZipFile(cast("BinaryIO", bounded)) as archive:
            bounded.max_bytes = MAX_ENTRY_BYTES
            checkpoint = _Archive(stream, size, path, archive, _entries(path, archive))
            return checkpoint.header(state_dict)
    except FormatError:
        raise
    except _ZIP_ERRORS as error:
        got = f"a broken zip ({type(error).__name__})"
        raise FormatError(path, got, "a file that torch.save wrote", "it is truncated") from None


@dataclass(frozen=True)
class _Archive:
    """An open zip, whose entries are all in one folder, ``root``."""

    stream: BinaryIO
    size: int
    path: Path
    archive: zipfile.ZipFile
    entries: dict[str, zipfile.ZipInfo]

    @property
    def root(self) -> str:
        return next(iter(self.entries), "").partition("/")[0]

    def header(self, state_dict: str | None) -> Header:
        """The header of whichever of torch's archives it is."""
        weights = torch_export.weights_config(self.path, self.root, self.entries)
        is_export = weights is not None
        if not is_export and f"{self.root}/data.pkl" not in self.entries:
            remedy = (
                "torch.export.save of torch 2.8 and later can be read"
                if "serialized_state_dict.pt" in self.entries
                else ""
            )
            raise FormatError(
                self.path, "a zip without data.pkl", "a file that torch.save wrote", remedy
            )
        byte_order = self.entries.get(f"{self.root}/byteorder")
        if byte_order and self._read(byte_order, 16) != b"little":
            raise FormatError(self.path, "big-endian numbers", "little-endian ones")
        if weights is not None:
            return self._exported(weights)
        if f"{self.root}/constants.pkl" in self.entries:
            return self._script()
        content = self._read_pickle("data.pkl")
        model, omission = select_model(self.path, content, state_dict)
        named = name_tensors(self.path, model)
        return build_header(self.path, named, self._locator("data")).with_omission(omission)

    def _script(self) -> Header:
        """A TorchScript program: the tensors of its modules, or what `torch.jit.freeze` left of them."""
        program = self._read_pickle("data.pkl")
        named = name_tensors(self.path, program)
        constants = name_tensors(self.path, {"constants": self._read_pickle("constants.pkl")})
        if not named.tensors:
            return build_header(self.path, constants, self._locator("constants"))
        header = build_header(self.path, named, self._locator("data"))
        buffers: frozenset[str] = frozenset()
        if isinstance(program, ScriptObject):
            views = {name for name, _ in header.shared}
            names = [named.prefix + name for name in named.tensors if name not in views]
            others = torch_script.tensors_without_gradient(program, names, self._code_reader())
            buffers = frozenset(name.removeprefix(named.prefix) for name in others)
        header = replace(header, buffers=buffers)
        if not constants.tensors:
            return header
        return header.with_omission(f"left out {len(constants.tensors)} constants of the program")

    def _code_reader(self) -> Callable[[str], str]:
        """Reads files of a program's code by their paths, as long as all together are bounded."""
        bytes_left = torch_script.MAX_CODE_BYTES

        def read_code(path: str) -> str:
            nonlocal bytes_left
            entry = self.entries.get(f"{self.root}/code/{path}")
            if entry is None or entry.file_size > bytes_left:
                return ""
            bytes_left -= entry.file_size
            return self._read(entry, entry.file_size).decode("utf-8", "replace")

        return read_code

    def _exported(self, weights: str) -> Header:
        """A program of torch.export: the parameters and buffers that its description lists."""
        raw = self._read(self.entries[weights], MAX_ENTRY_BYTES)
        tensors, buffers = torch_export.read_weights(self.path, raw)
        locator = self._locator(torch_export.FOLDER)
        named = NamedTensors(tensors, "", {})
        return replace(build_header(self.path, named, locator), buffers=buffers)

    def _locator(self, folder: str) -> StorageLocator:
        return StorageLocator(
            self.stream, self.size, self.path, f"{self.root}/{folder}", self.entries
        )

    def _read_pickle(self, name: str) -> Any:
        raw = self._read(self.entries[f"{self.root}/{name}"], MAX_PICKLE_BYTES)
        return read_pickle(self.path, raw)

    def _read(self, info: zipfile.ZipInfo, max_bytes: int) -> bytes:
        name, compression = short_repr(info.filename), info.compress_type
        is_readable = compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if info.file_size > max_bytes or not is_readable:
            got = f"{name} of {info.file_size} bytes, compression {compression}"
            raise FormatError(self.path, got, f"at most {max_bytes}, stored or deflated")
        with self.archive.open(info) as entry:
            return entry.read(max_bytes + 1)


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


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    entries = {info.filename: info for info in archive.infolist()}
    if len(entries) < len(archive.infolist()):
        raise FormatError(path, "a zip entry that occurs twice", "each name once")
    return entries


class StorageLocator:
    """Finds each storage's bytes, once."""

    def __init__(
        self,
        stream: BinaryIO,
        size: int,
        path: Path,
        folder: str,
        entries: dict[str, zipfile.ZipInfo],
    ) -> None:
        self.stream, self.size, self.path = stream, size, path
        self.folder, self.entries = folder, entries
        self.storages: dict[str, StorageLocation] = {}

    def find(self, storage: Storage) -> StorageLocation:
        """The location of ``storage``."""
        key = storage.key
        if key not in self.storages:
            name = f"{self.folder}/{key}"
            if name not in self.entries:
                raise FormatError(
                    self.path, f"no {short_repr(name)} in it", "every storage of its tensors"
                )
            self.storages[key] = self._locate(name, self.entries[name])
        return self.storages[key]

    def _locate(self, name: str, info: zipfile.ZipInfo) -> StorageLocation:
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
            return StorageLocation(info.file_size, None)
        if info.file_size != info.compress_size:
            raise FormatError(self.path, f"{short_repr(name)} of two sizes", "one size")
        return StorageLocation(info.file_size, offset)
