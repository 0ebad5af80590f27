"""Sharded checkpoints, read by their index; and the choice of a folder's weights file.

Format: NAME.index.json, {"metadata": {...}, "weight_map": {tensor: file beside the index}}, as
written by transformers' save_pretrained for shards of safetensors and of torch.save.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from minilm.errors import FormatError, InputError
from minilm.formats.checks import check_name, open_regular
from minilm.formats.header import TORCH_ENDINGS, WEIGHTS_ENDINGS, Header
from minilm.formats.json_file import MAX_JSON_BYTES, parse_object
from minilm.safe_text import short_repr

MAX_SHARDS = 2000

# In transformers' order of preference.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
)
# Else the only file with an ending; an adapter only where there is no model.
ENDINGS = (".safetensors.index.json", *WEIGHTS_ENDINGS)
ADAPTER = "adapter_model."
ADAPTER_CONFIG, GENERATION_CONFIG = "adapter_config.json", "generation_config.json"
CHAT_TEMPLATE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
NOT_WEIGHTS = ("optimizer.", "scheduler.", "rng_state", "training_args.")
# Of the metadata of an index: elements, and bytes.
TOTALS = ("total_parameters", "total_size")
_SHARD = re.compile(r"(.+-)(\d{5})(-of-)(\d{5})(\.(?:safetensors|bin|pth|pt))", re.DOTALL)


def read_index(path: Path) -> Header:
    """Read the index ``path`` and the header of every shard in it.

    Raises FormatError where index and shards disagree, or OSError.
    """
    with open_regular(path) as (stream, _):
        return parse(stream.read(MAX_JSON_BYTES + 1), path)


def parse(raw: bytes, path: Path) -> Header:
    """The joint header of the shards of the index ``raw``, which are in the folder of ``path``."""
    index = parse_object(path, raw, strict=True)
    shard_of = _weight_map(path, index.get("weight_map"))
    shards = list(dict.fromkeys(shard_of.values()))
    if len(shards) > MAX_SHARDS:
        raise FormatError(path, f"{len(shards)} shards", f"at most {MAX_SHARDS}")
    headers = []
    for shard in sorted(shards):
        header = _read_shard(path, shard)
        for tensor in header.tensors:
            indexed_shard = shard_of.pop(header.prefix + tensor.name, None)
            if indexed_shard != shard:
                got = f"tensor {short_repr(tensor.name)} in {short_repr(shard)}"
                expected = (
                    f"it in {short_repr(indexed_shard)}"
                    if indexed_shard
                    else "only tensors that are in the index"
                )
                raise FormatError(path, got, expected)
        headers.append(header)
    for name, shard in shard_of.items():
        got = f"no tensor {short_repr(name)} in {short_repr(shard)}"
        raise FormatError(path, got, "every tensor of the index")
    joined = join_headers(headers)  # torchao describes its tensors in the metadata of their shard
    index_metadata = index.get("metadata")
    if not isinstance(index_metadata, dict):
        return joined
    metadata = {
        key: str(value)
        for key, value in index_metadata.items()
        if isinstance(value, (str, int, float))
    }
    totals = {key: index_metadata[key] for key in TOTALS if key in index_metadata}
    return replace(joined, metadata={**joined.metadata, **metadata}, index_totals=totals)


class Shards(NamedTuple):
    """The files that are there of a model in ``total`` shards, by their numbers."""

    files: dict[int, Path]
    total: int

    @property
    def is_complete(self) -> bool:
        """Whether all are there."""
        return len(self.files) == self.total


def shard_number(path: Path) -> int | None:
    """The number in a name like model-00001-of-00002.safetensors; None for another name."""
    match = _SHARD.fullmatch(path.name)
    return int(match[2]) if match and 1 <= int(match[2]) <= int(match[4]) <= MAX_SHARDS else None


def shards_beside(path: Path) -> Shards:
    """The shards of the model that ``path``, which has a `shard_number`, is one of."""
    match = _SHARD.fullmatch(path.name)
    assert match is not None
    total = int(match[4])
    names = (f"{match[1]}{i:05}{match[3]}{match[4]}{match[5]}" for i in range(1, total + 1))
    paths = {i: path.with_name(name) for i, name in enumerate(names, 1)}
    return Shards({i: shard for i, shard in paths.items() if shard.is_file()}, total)


def read_shards(paths: Sequence[Path]) -> Header:
    """The joint header of shards without an index. Raises FormatError for a name in two of them."""
    shard_of: dict[str, str] = {}
    headers = [_read_shard(path, path.name) for path in paths]
    for path, header in zip(paths, headers, strict=True):
        for tensor in header.tensors:
            first = shard_of.setdefault(tensor.name, path.name)
            if first != path.name:
                got = f"tensor {short_repr(tensor.name)}, which is in {short_repr(first)} too"
                raise FormatError(path, got, "each tensor in one shard")
    return join_headers(headers)


def join_headers(headers: Iterable[Header]) -> Header:
    """Several files as one."""
    headers = tuple(headers)
    prefixes = {header.prefix for header in headers}
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    omissions = (line for h in headers for line in (h.omissions if prefix else h.lines))
    return Header(
        tuple(tensor for header in headers for tensor in header.tensors),
        {key: value for header in headers for key, value in header.metadata.items()},
        sum(header.data_bytes for header in headers),
        shared=tuple(pair for header in headers for pair in header.shared),
        buffers=frozenset(name for header in headers for name in header.buffers),
        prefix=prefix,
        omissions=tuple(dict.fromkeys(omissions)),
    )


def find_weights(folder: Path) -> Path | None:
    """The weights file or index in ``folder``, or the first shard there is; None where there is none.

    Raises InputError where the choice is ambiguous.
    """
    names = sorted(os.listdir(folder))
    for name in WEIGHTS:
        if name in names:
            return folder / name
    weights = [n for n in _first_shards(_first_splits(names)) if not n.startswith(NOT_WEIGHTS)]
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


def _first_shards(names: Iterable[str]) -> list[str]:
    """``names`` with only the first that is there of each model in shards."""
    first: dict[tuple[str, ...], str] = {}
    for name in names:
        match = _SHARD.fullmatch(name)
        first.setdefault((match[1], match[4], match[5]) if match else (name,), name)
    return list(first.values())


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
        name.endswith((".safetensors", *TORCH_ENDINGS))
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
