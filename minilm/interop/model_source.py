"""What is converted: a run, or a Hugging Face folder read as one; its weights under our names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from minilm import formats
from minilm.architectures.minilm import layout
from minilm.architectures.tensor_map import Piece
from minilm.config import ModelConfig
from minilm.errors import FormatError, InputError
from minilm.formats import tensor_io
from minilm.formats.checks import check_same_tensors
from minilm.formats.header import StoredTensor
from minilm.formats.huggingface import find_weights
from minilm.formats.json_file import read_object
from minilm.formats.tensor_io import Array
from minilm.interop.architectures import named
from minilm.interop.architectures.common import Architecture
from minilm.runs import files as run_files

HEADS = ("lm_head.weight", "embed_out.weight")


@dataclass(frozen=True)
class Source:
    """A model whose tensors can be read by our names. ``pieces`` say where, for another program's."""

    folder: Path
    config: ModelConfig
    stored: Mapping[str, StoredTensor]
    pieces: Mapping[str, tuple[Piece, int]]
    is_run: bool

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor, by our names."""
        return shapes_of(self.config)

    def dtype(self, name: str) -> str:
        """What a tensor is stored in."""
        piece = self.pieces.get(name)
        return self.stored[piece[0].theirs if piece else name].dtype

    def alike(self, names: Sequence[str]) -> Sequence[str]:
        """``names``, which are to become one tensor. Raises FormatError where their dtypes differ."""
        dtypes = {self.dtype(name) for name in names}
        if len(dtypes) > 1:
            raise FormatError(
                self.folder,
                f"{names[0]} and {names[-1]} in {' and '.join(sorted(dtypes))}",
                "one dtype",
            )
        return names

    def read(self, name: str) -> Array:
        """One tensor, by our name."""
        found = self.pieces.get(name)
        if found is None:
            return tensor_io.read(self.stored[name])
        piece, number = found
        rows = [self.shapes[each][0] for each in piece.ours]
        return piece.split(tensor_io.read(self.stored[piece.theirs]), rows, self.config)[number]


def shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter, a tied head left out: as the ledger declares them."""
    return {tensor.name: tensor.shape for tensor in layout(config).named_tensors()}


def open_source(folder: Path) -> Source:
    """Read the headers of a run or a Hugging Face folder.

    Raises InputError for another folder, ConfigError for a field that minilm cannot follow, FormatError
    naming the first tensor that is not as the configuration says.
    """
    if not (folder / run_files.CONFIG).is_file():
        raise InputError(folder, "no config.json", "the folder of a run or of a Hugging Face model")
    fields = read_object(folder / run_files.CONFIG)
    if fields.get("family") == run_files.FAMILY:
        config = run_files.read_config(folder / run_files.CONFIG)
        path = folder / run_files.WEIGHTS
        stored = {tensor.name: tensor for tensor in formats.read(path).tensors}
        check_same_tensors(path, {n: t.shape for n, t in stored.items()}, shapes_of(config))
        return Source(folder, config, stored, {}, is_run=True)
    architecture = named(fields)
    config = architecture.model_config(fields)
    path_of_weights = find_weights(folder)
    if path_of_weights is None:
        raise InputError(folder, "no weights", "model.safetensors or its shards")
    stored = _their_names(path_of_weights, architecture, config)
    pieces = architecture.pieces(config)
    ours = shapes_of(config)
    wanted = {piece.theirs: piece.shape([ours[name] for name in piece.ours]) for piece in pieces}
    check_same_tensors(path_of_weights, {n: t.shape for n, t in stored.items()}, wanted)
    places = {name: (piece, number) for piece in pieces for number, name in enumerate(piece.ours)}
    return Source(folder, config, stored, places, is_run=False)


def _their_names(
    path: Path, architecture: Architecture, config: ModelConfig
) -> dict[str, StoredTensor]:
    """The tensors that count, with the prefix that some files leave out."""
    ignored = {name.format(i=i) for name in architecture.ignored for i in range(config.num_layers)}
    found = {}
    prefix = architecture.optional_prefix
    for tensor in formats.read(path).tensors:
        name = tensor.name
        if prefix and not name.startswith(prefix) and name not in HEADS:
            name = prefix + name
        if name not in ignored:
            found[name] = tensor
    if architecture.family == "gpt_neox" and "lm_head.weight" in found:
        found["embed_out.weight"] = found.pop("lm_head.weight")
    if config.tied_embeddings:
        for name in HEADS:
            if name in found:
                _same_values(path, found.pop(name), found, architecture.pieces(config)[0].theirs)
    return found


def _same_values(
    path: Path, head: StoredTensor, found: Mapping[str, StoredTensor], table: str
) -> None:
    """A head that is stored although it is tied must be the table."""
    import numpy as np

    stored = found.get(table)
    if stored is None or not np.array_equal(tensor_io.read(head), tensor_io.read(stored)):
        raise FormatError(
            path,
            f"{head.name} that is not {table}",
            "tie_word_embeddings false, or the same values",
        )
