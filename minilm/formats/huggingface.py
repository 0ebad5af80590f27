"""Checkpoints in several files, by their index; and which weights a folder holds.

Format: NAME.index.json, {"metadata": {...}, "weight_map": {tensor: file beside the index}}, as
transformers' save_pretrained writes it for safetensors and for torch.save alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from minilm.errors import FormatError, InputError
from minilm.formats.checks import check_name, open_regular
from minilm.formats.header import Header, StoredTensor
from minilm.formats.json_file import LARGEST, parse_object
from minilm.safe_text import short_repr

MOST_SHARDS = 2000

# In the order that transformers looks for them.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Else the only file of a kind, the safer kinds first; an adapter where there is no model.
ENDINGS = (".safetensors.index.json", ".safetensors", ".gguf", ".bin", ".pth", ".pt")
ADAPTER = "adapter_model."
NOT_WEIGHTS = ("optimizer.", "scheduler.", "rng_state", "training_args.")


def read_index(path: Path) -> Header:
    """Read the index ``path`` and the header of every shard that it names.

    Raises FormatError where index and shards disagree, or OSError as a file gives it.
    """
    with open_regular(path) as (stream, _):
        return parse(stream.read(LARGEST + 1), path)


def parse(raw: bytes, path: Path) -> Header:
    """What the index text ``raw`` leads to; shards are looked for in the folder of ``path``."""
    index = parse_object(path, raw, unique=True)
    places = _weight_map(path, index.get("weight_map"))
    shards = list(dict.fromkeys(places.values()))
    if len(shards) > MOST_SHARDS:
        raise FormatError(path, f"{len(shards)} shards", f"at most {MOST_SHARDS}")
    tensors: list[StoredTensor] = []
    shared: list[tuple[str, str]] = []
    texts: dict[str, str] = {}  # torchao describes its tensors in the metadata of their shard
    data_bytes = 0
    for shard in sorted(shards):
        header = _read_shard(path, shard)
        for tensor in header.tensors:
            place = places.pop(tensor.name, None)
            if place != shard:
                came = f"tensor {short_repr(tensor.name)} in {short_repr(shard)}"
                wanted = (
                    f"it in {short_repr(place)}" if place else "no tensor that the index leaves out"
                )
                raise FormatError(path, came, wanted)
        tensors += header.tensors
        shared += header.shared
        texts |= header.metadata
        data_bytes += header.data_bytes
    for name, shard in places.items():
        raise FormatError(path, f"no tensor {short_repr(name)} in {short_repr(shard)}", "it there")
    metadata = index.get("metadata")
    said = metadata.items() if isinstance(metadata, dict) else ()
    texts |= {key: str(value) for key, value in said if isinstance(value, (str, int, float))}
    return Header(tuple(tensors), texts, data_bytes, tuple(shared))


def shards_of(folder: Path) -> Path | None:
    """The weights that ``folder`` holds: one file or an index; None where there are none.

    Raises InputError where several files could be meant.
    """
    names = sorted(os.listdir(folder))
    for name in WEIGHTS:
        if name in names:
            return folder / name
    weights = [name for name in _first_parts(names) if not name.startswith(NOT_WEIGHTS)]
    for is_adapter in (False, True):
        for ending in ENDINGS:
            found = [
                name
                for name in weights
                if name.endswith(ending) and name.startswith(ADAPTER) == is_adapter
            ]
            if len(found) == 1:
                return folder / found[0]
            if found:
                some = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
                raise InputError(
                    folder, f"several files of weights ({some})", "one", "name the file"
                )
    return None


def _first_parts(names: Iterable[str]) -> list[str]:
    """A GGUF model split by llama.cpp is read from any part: the first stands for all."""
    return [n for n in names if not n.endswith(".gguf") or "-of-" not in n or "-00001-of-" in n]


def _weight_map(path: Path, value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        raise FormatError(path, "no weight_map", "a map from tensors to files")
    for shard in set(map(_hashable, value.values())):
        if not isinstance(shard, str) or not _is_plain(shard) or shard == path.name:
            raise FormatError(
                path, f"the shard {short_repr(shard)}", "a file of weights beside the index"
            )
    for name in value:
        check_name(path, name)
    return dict(value)


def _hashable(value: object) -> object:
    return value if isinstance(value, str) else type(value).__name__.join("<>")


def _is_plain(name: str) -> bool:
    """A name of weights in this very folder, which no system reads as a way out of it."""
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
        from minilm.formats.torch_zip import read_header as read_torch_zip

        return read_torch_zip(shard)
    except FileNotFoundError:
        came = f"no {short_repr(name)} beside it"
        raise FormatError(path, came, "every shard that it names", "download it") from None
