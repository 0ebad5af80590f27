"""The header of a torch.save checkpoint as torch wrote it before 1.6.

Format (torch/serialization.py, `_legacy_save`): pickles of a magic number, the protocol's version, the
machine, the contents and the keys of the storages; then each storage in the order of the keys, as the
number of its elements in 8 bytes and their values.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from minilm.dtypes import BITS
from minilm.errors import FormatError
from minilm.formats.header import Header
from minilm.formats.torch_checkpoint import select_model
from minilm.formats.torch_contents import name_tensors
from minilm.formats.torch_objects import Storage
from minilm.formats.torch_pickle import MAX_PICKLE_BYTES, read_next_pickle
from minilm.formats.torch_tensors import StorageLocation, build_header
from minilm.safe_text import short_repr

# The pickle of the magic number, in protocol 2.
MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
PROTOCOL_VERSION = 1001


def parse(stream: BinaryIO, size: int, path: Path, state_dict: str | None = None) -> Header:
    """The header of a file of ``size`` bytes; ``path`` is the file of its tensors."""
    stream.seek(len(MAGIC))
    pickles = io.BytesIO(stream.read(MAX_PICKLE_BYTES))
    version, _ = read_next_pickle(path, pickles)
    if version != PROTOCOL_VERSION:
        raise FormatError(path, f"version {short_repr(version)}", str(PROTOCOL_VERSION))
    machine, _ = read_next_pickle(path, pickles)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise FormatError(path, "big-endian numbers", "little-endian ones")
    content, storages = read_next_pickle(path, pickles)
    keys, _ = read_next_pickle(path, pickles)
    if (
        not isinstance(keys, list)
        or len(keys) != len(storages)
        or not all(isinstance(key, str) for key in keys)
        or set(keys) != storages.keys()
    ):
        raise FormatError(path, "a list of storages that is not that of its tensors", "each once")
    locator = _LegacyLocator(stream, size, path, len(MAGIC) + pickles.tell())
    locator.locate_all(keys, storages)
    model, omission = select_model(path, content, state_dict)
    return build_header(path, name_tensors(path, model), locator).with_omission(omission)


class _LegacyLocator:
    """Finds each storage behind those before it; ``storages`` are those of the model."""

    def __init__(self, stream: BinaryIO, size: int, path: Path, position: int) -> None:
        self.stream, self.size, self.path, self.position = stream, size, path, position
        self.locations: dict[str, StorageLocation] = {}
        self.storages: dict[str, StorageLocation] = {}

    def locate_all(self, keys: list[str], storages: Mapping[str, Storage]) -> None:
        """Read the number of elements of each storage, in the order of ``keys``."""
        for key in keys:
            self.stream.seek(self.position)
            count = int.from_bytes(self.stream.read(8), "little")
            nbytes = count * BITS.get(storages[key].dtype, 8) // 8
            self.locations[key] = StorageLocation(nbytes, self.position + 8)
            self.position += 8 + nbytes
            if self.position > self.size:
                got = f"storage {short_repr(key)} up to byte {self.position} of {self.size}"
                raise FormatError(self.path, got, "a whole file", "it is truncated")

    def find(self, storage: Storage) -> StorageLocation:
        """The location of ``storage``."""
        return self.storages.setdefault(storage.key, self.locations[storage.key])
