"""The headers of weights files: tensors' names, dtypes, shapes and offsets, and metadata."""

from __future__ import annotations

from pathlib import Path

from minilm.errors import FormatError, InputError
from minilm.formats.header import TORCH_ENDINGS, Header

# Each reader is imported where it is used, which keeps start-up fast.


def read(path: Path, state_dict: str | None = None) -> Header:
    """The header of a weights file, whose format is known by its name or first bytes.

    ``state_dict`` names the part of a torch.save checkpoint that is the model. Raises InputError or OSError.
    """
    container = _container(path)
    if state_dict is not None and container != "torch":
        raise InputError("--state-dict", f"{path.name}", "a file that torch.save wrote")
    if container == "index":
        from minilm.formats.huggingface import read_index

        return read_index(path)
    if container == "gguf":
        from minilm.formats.gguf import read_header as read_gguf

        return read_gguf(path)
    if container == "torch":
        from minilm.formats.torch_file import read_header as read_torch

        return read_torch(path, state_dict)
    from minilm.formats.safetensors import read_header as read_safetensors

    return read_safetensors(path)


def read_model(path: Path) -> Header:
    """As `read`; where ``path`` is one shard of a model, all of them that are there."""
    from minilm.formats.huggingface import read_shards, shard_number, shards_beside

    if shard_number(path) is None:
        return read(path)
    return read_shards(tuple(shards_beside(path).files.values()))


def is_gguf(path: Path) -> bool:
    """Whether `read` takes the weights file for GGUF, which has its configuration in itself."""
    return _container(path) == "gguf"


def _container(path: Path) -> str:
    name = path.name
    if name.endswith(".index.json"):
        return "index"
    if name.endswith(".safetensors"):
        return "safetensors"
    from minilm.formats.checks import open_regular

    with open_regular(path) as (stream, _):
        first_bytes = stream.read(9)
    if first_bytes.startswith(b"GGUF") or name.endswith(".gguf"):
        return "gguf"
    if name.endswith(TORCH_ENDINGS):
        return "torch"
    if first_bytes[8:] == b"{":
        return "safetensors"
    if first_bytes.startswith((b"PK\x03\x04", b"\x80")):  # a zip, a pickle
        return "torch"
    raise FormatError(path, "an unknown file format", "safetensors, GGUF or what torch.save writes")
