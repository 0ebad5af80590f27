"""Sharded checkpoints, read by their index; and the choice of a folder's weights file.

Format: NAME.index.json, {"metadata": {...}, "weight_map": {tensor: file beside the index}}, as
written by transformers' save_pretrained for shards of safetensors and of torch.save.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from minilm.errors import FormatError, InputError
from minilm.formats.checks import check_name, open_regular
from minilm.formats.header import Header, StoredTensor
from minilm.formats.json_file import MAX_JSON_BYTES, parse_object
from minilm.safe_text import short_repr

MAX_SHARDS = 2000

# In transformers' order of preference.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Else the only file with an ending, safer formats first; an adapter only where there is no model.
ENDINGS = (".safetensors.index.json", ".safetensors", ".gguf", ".bin", ".pth", ".pt")
ADAPTER = "adapter_model."
NOT_WEIGHTS = ("optimizer.", "scheduler.", "rng_state", "training_args.")


def read_index(path: Path) -> Header:
    """Read the index ``path`` and the header of every shard in it.

    Raises FormatError where index and shards disagree, or OSError.
    """
    with open_regular(path) as (stream, _):
        return parse(stream.read(MAX_JSON_BYTES + 1), path)


def parse(raw: bytes, path: Path) -> Header:
    """The joint header of the shards of the index ``raw``, which are in the folder of ``path``."""
    index = parse_object(path, raw, unique=True)
    shard_of = _weight_map(path, index.get("weight_map"))
    shards = list(dict.fromkeys(shard_of.values()))
    if len(shards) > MAX_SHARDS:
        raise FormatError(path, f"{len(shards)} shards", f"at most {MAX_SHARDS}")
    tensors: list[StoredTensor] = []
    shared: list[tuple[str, str]] = []
    metadata: dict[str, str] = {}  # torchao describes its tensors in that of their shard
    data_bytes = 0
    for shard in sorted(shards):
        header = _read_shard(path, shard)
        for tensor in header.tensors:
            indexed_shard = shard_of.pop(tensor.name, None)
            if indexed_shard != shard:
                got = f"tensor {short_repr(tensor.name)} in {short_repr(shard)}"
                expected = (
                    f"it in {short_repr(indexed_shard)}"
                    if indexed_shard
                    else "only tensors that are in the index"
                )
                raise FormatError(path, got, expected)
        tensors += header.tensors
        shared += header.shared
        metadata |= header.metadata
        data_bytes += header.data_bytes
    for name, shard in shard_of.items():
        got = f"no tensor {short_repr(name)} in {short_repr(shard)}"
        raise FormatError(path, got, "every tensor of the index")
    index_metadata = index.get("metadata")
    if isinstance(index_metadata, dict):
        metadata |= {
            key: str(value)
            for key, value in index_metadata.items()
            if isinstance(value, (str, int, float))
        }
    return Header(tuple(tensors), metadata, data_bytes, tuple(shared))


def find_weights(folder: Path) -> Path | None:
    """The weights file or index in ``folder``; None where there is none.

    Raises InputError where the choice is ambiguous.
    """
    names = sorted(os.listdir(folder))
    for name in WEIGHTS:
        if name in names:
            return folder / name
    weights = [name for name in _first_splits(names) if not name.startswith(NOT_WEIGHTS)]
    for is_adapter in (False, True):
        for ending in ENDINGS:
            candidates = [
                name
                for name in weights
                if name.endswith(ending) and name.startswith(ADAPTER) == is_adapter
            ]
            if len(candidates) == 1:
                return folder / candidates[0]
            if candidates:
                listed = ", ".join(candidates[:4]) + (", ..." if len(candidates) > 4 else "")
                raise InputError(
                    folder, f"several weights files ({listed})", "one", "name the file"
                )
    return None


def _first_splits(names: Iterable[str]) -> list[str]:
    """``names`` with only the first file of a GGUF model that llama.cpp split."""
    return [n for n in names if not n.endswith(".gguf") or "-of-" not in n or "-00001-of-" in n]


def _weight_map(path: Path, value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        raise FormatError(path, "no weight_map", "a map from tensors to files")
    for shard in set(map(_hashable, value.values())):
        if not isinstance(shard, str) or not _is_plain(shard) or shard == path.name:
            raise FormatError(
                path, f"the shard {short_repr(shard)}", "a weights file beside the index"
            )
    for name in value:
        check_name(path, name)
    return dict(value)


def _hashable(value: object) -> object:
    """A string as it is, any other value as <type>."""
    return value if isinstance(value, str) else type(value).__name__.join("<>")


def _is_plain(name: str) -> bool:
    """Whether it names a weights file in the same folder, on every operating system."""
    return (
        name.endswith((".safetensors", ".bin", ".pt", ".pth"))
        and len(name) <= 255
        and not name.startswith(".")
        and not any(c in name for c in "/\\:\0")
    )


def _read_shard(path: Path, name: str) -> Header:
    shard = path.parent / name
    try:
        if name.endswith(".safetensors"):
            from minilm.formats.safetensors import read_header as read_safetensors

            return read_safetensors(shard)
        from minilm.formats.torch_file import read_header as read_torch

        return read_torch(shard)
    except FileNotFoundError:
        got = f"no {short_repr(name)} beside it"
        raise FormatError(path, got, "every shard that it names", "download it") from None
