"""What is converted: a run, or a Hugging Face folder read as one; its weights under minilm's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from minilm import formats
from minilm.architectures.conversion import architecture_for
from minilm.architectures.minilm import layout as minilm_layout
from minilm.architectures.tensor_map import TensorMapping, tensor_mappings
from minilm.config import ModelConfig
from minilm.errors import FormatError, InputError
from minilm.formats import tensor_io
from minilm.formats.checks import check_same_tensors
from minilm.formats.header import StoredTensor
from minilm.formats.huggingface import find_weights
from minilm.formats.json_file import read_object
from minilm.formats.tensor_io import Array
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.runs import files as run_files

# What some files call the head, whatever their architecture calls it.
USUAL_HEAD = "lm_head.weight"


@dataclass(frozen=True)
class ModelSource:
    """A model whose tensors can be read by minilm's names.

    ``mapped`` is empty for a run; of a Hugging Face folder, it has the mapping of the tensor that holds
    each of them, and its index there.
    """

    folder: Path
    config: ModelConfig
    stored: Mapping[str, StoredTensor]
    mapped: Mapping[str, tuple[TensorMapping, int]]
    is_run: bool

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor, by minilm's names."""
        return declared_shapes(self.config)

    def dtype(self, name: str) -> str:
        """What a tensor is stored in."""
        return self.stored[self.mapped[name][0].hf_name if self.mapped else name].dtype

    def read(self, name: str) -> Array:
        """One tensor, by minilm's name."""
        if not self.mapped:
            return tensor_io.read(self.stored[name])
        mapping, number = self.mapped[name]
        rows = [self.shapes[each][0] for each in mapping.minilm_names]
        return mapping.split(tensor_io.read(self.stored[mapping.hf_name]), rows, self.config)[
            number
        ]

    def read_joined(self, names: Sequence[str]) -> list[Array]:
        """Tensors that are to become one. Raises FormatError where their dtypes differ."""
        dtypes = {self.dtype(name) for name in names}
        if len(dtypes) > 1:
            raise FormatError(
                self.folder,
                f"{names[0]} and {names[-1]} in {' and '.join(sorted(dtypes))}",
                "one dtype",
            )
        return [self.read(name) for name in names]


def declared_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter, a tied head left out: as the ledger declares them."""
    return {tensor.name: tensor.shape for tensor in minilm_layout(config).named_tensors()}


def open_source(folder: Path) -> ModelSource:
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
        check_same_tensors(path, _shapes(stored), declared_shapes(config))
        return ModelSource(folder, config, stored, {}, is_run=True)
    architecture = architecture_for(fields)
    config = architecture.model_config(fields)
    weights = find_weights(folder)
    if weights is None:
        raise InputError(folder, "no weights", "model.safetensors or its shards")
    stored = _stored_by_declared_name(weights, architecture.layout(fields))
    mappings = tensor_mappings(architecture, config)
    shapes = declared_shapes(config)
    expected = {
        mapping.hf_name: mapping.shape([shapes[name] for name in mapping.minilm_names])
        for mapping in mappings
    }
    check_same_tensors(weights, _shapes(stored), expected)
    mapped = {
        name: (mapping, number)
        for mapping in mappings
        for number, name in enumerate(mapping.minilm_names)
    }
    return ModelSource(folder, config, stored, mapped, is_run=False)


def _shapes(stored: Mapping[str, StoredTensor]) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in stored.items()}


def _stored_by_declared_name(path: Path, layout: Layout) -> dict[str, StoredTensor]:
    """The parameters of a file, with the prefix that some files leave out, a tied head once."""
    ignored = {name.format(i=i) for name in layout.ignored for i in range(layout.symbols["L"])}
    head = _head_name(layout)
    prefix = layout.optional_prefix
    stored = {}
    for tensor in formats.read_model(path).tensors:
        name = head if tensor.name == USUAL_HEAD else tensor.name
        if prefix and not name.startswith(prefix) and name != head:
            name = prefix + name
        if name not in ignored:
            stored[name] = tensor
    for tied, table in layout.ties:
        if tied in stored:
            _check_same_values(path, stored.pop(tied), stored.get(table), table)
    return stored


def _head_name(layout: Layout) -> str:
    if layout.ties:
        return layout.ties[0][0]
    return next(t.name for t in layout.tensors if t.component == components.LM_HEAD)


def _check_same_values(
    path: Path, head: StoredTensor, stored: StoredTensor | None, table: str
) -> None:
    """A head that is stored although it is tied must be the table."""
    import numpy as np

    if stored is None or not np.array_equal(tensor_io.read(head), tensor_io.read(stored)):
        raise FormatError(
            path,
            f"{head.name} that is not {table}",
            "tie_word_embeddings false, or the same values",
        )
