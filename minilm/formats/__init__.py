"""What is in a weights file, from its header alone."""

from __future__ import annotations

from pathlib import Path

from minilm.errors import FormatError
from minilm.formats.header import Header

# Only the reader that is needed is imported: a start must be fast.


def read(path: Path) -> Header:
    """The header of a weights file of any container, told apart by its name, else by its beginning.

    Raises FormatError, or OSError as the file gives it.
    """
    kind = _kind(path)
    if kind == "index":
        from minilm.formats.huggingface import read_index

        return read_index(path)
    if kind == "gguf":
        from minilm.formats.gguf import read_header as read_gguf

        return read_gguf(path)
    if kind == "torch":
        from minilm.formats.torch_zip import read_header as read_torch_zip

        return read_torch_zip(path)
    from minilm.formats.safetensors import read_header as read_safetensors

    return read_safetensors(path)


def _kind(path: Path) -> str:
    name = path.name
    if name.endswith(".index.json"):
        return "index"
    if name.endswith(".safetensors"):
        return "safetensors"
    from minilm.formats.checks import open_regular

    with open_regular(path) as (stream, _):
        beginning = stream.read(9)
    if beginning.startswith(b"GGUF") or name.endswith(".gguf"):
        return "gguf"
    if name.endswith((".pt", ".pth", ".bin", ".ckpt")) or beginning.startswith(b"PK\x03\x04"):
        return "torch"
    if beginning[8:] == b"{":
        return "safetensors"
    raise FormatError(path, "an unknown kind of file", "safetensors, GGUF or a torch.save zip")
