"""What is in a weights file, from its header alone."""

from __future__ import annotations

from pathlib import Path

from minilm.errors import FormatError
from minilm.formats.header import Header


def read(path: Path) -> Header:
    """The header of a weights file, by what its name ends in. Raises FormatError."""
    if path.suffix == ".safetensors":
        from minilm.formats.safetensors import read_header

        return read_header(path)
    raise FormatError(path, f"a file ending in {path.suffix!r}", "*.safetensors or config.json")
