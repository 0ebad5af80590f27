"""Small files of every container, written here by the letter of its format."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

UINT32, STRING, ARRAY = 4, 8, 9

# Name, dimensions (fastest first), type, offset.
Entry = tuple[str, Sequence[int], int, int]


def write_safetensors(
    path: Path, header: object, data: bytes = b"", length: int | None = None
) -> Path:
    """A file with this header, whatever it is, and a length that may not be its own."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def text(value: str | bytes) -> bytes:
    """A GGUF string."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def scalar(key: str | bytes, kind: int, raw: bytes) -> bytes:
    """A GGUF key and its value as it is stored."""
    return text(key) + struct.pack("<I", kind) + raw


def strings(key: str, values: Sequence[str]) -> bytes:
    """A GGUF key and an array of strings."""
    head = struct.pack("<IQ", STRING, len(values))
    return scalar(key, ARRAY, head + b"".join(map(text, values)))


def gguf(
    tensors: Sequence[Entry] = (),
    keys: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A GGUF file; ``counts`` are what it says of its tensors and keys."""
    counts = counts or (len(tensors), len(keys))
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys)
    for name, dimensions, kind, offset in tensors:
        head += text(name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        head += struct.pack("<IQ", kind, offset)
    return head + bytes(-len(head) % alignment) + data


def torch_zip(
    pickle: bytes, storages: Mapping[str, bytes] | None = None, compression: int = 0
) -> bytes:
    """A zip as torch.save writes it around this data.pkl."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", compression) as archive:
        archive.writestr("x/data.pkl", pickle)
        for key, raw in (storages or {}).items():
            archive.writestr(f"x/data/{key}", raw)
    return whole.getvalue()
