"""The header of a file that torch wrote: torch.save of any version, TorchScript, torch.export.

No code in the file is executed, and storages are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from minilm.errors import FormatError
from minilm.formats import torch_legacy, torch_zip
from minilm.formats.checks import open_regular
from minilm.formats.header import Header


def read_header(path: Path, state_dict: str | None = None) -> Header:
    """Read and check the header of ``path``; ``state_dict`` names the part that is the model.

    Raises FormatError or OSError.
    """
    with open_regular(path) as (stream, size):
        return parse(stream, size, path, state_dict)


def parse(stream: BinaryIO, size: int, path: Path, state_dict: str | None = None) -> Header:
    """The header of a file of ``size`` bytes; ``path`` is the file of its tensors."""
    first_bytes = stream.read(len(torch_legacy.MAGIC))
    if first_bytes.startswith(b"PK\x03\x04"):
        return torch_zip.parse(stream, size, path, state_dict)
    if first_bytes == torch_legacy.MAGIC:
        return torch_legacy.parse(stream, size, path, state_dict)
    expected, remedy = (
        "a file that torch.save wrote",
        "save it again with torch.save or safetensors",
    )
    if first_bytes.startswith(b"\x80"):
        raise FormatError(path, "a bare pickle", expected, remedy)
    raise FormatError(
        path,
        "no zip and no pickle",
        expected,
        "the file is truncated or is not a checkpoint",
    )
