"""What is converted: a run, or a Hugging Face folder read as one; its weights under minilm's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from minilm import formats
from minilm.architectures.conversion import Importable, importable_for
from minilm.architectures.minilm import layout as minilm_layout
from minilm.architectures.tensor_map import TensorMapping, match_tensors, tensor_mappings
from minilm.config import ModelConfig
from minilm.errors import FormatError, InputError, naming_file
from minilm.formats import tensor_io
from minilm.formats.checks import check_same_tensors
from minilm.formats.header import StoredTensor
from minilm.formats.huggingface import find_weights
from minilm.formats.json_file import read_object
from minilm.formats.tensor_io import Array
from minilm.inspection.folders import snapshot_of_cache
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.runs import files as run_files
from minilm.text.tokenizer_file import load_tokenizer
from minilm.text.tokenizers import Tokenizer

# What some files call the head, whatever their architecture calls it.
USUAL_HEAD = "lm_head.weight"
TIED = "tie_word_embeddings"
# minilm's names.
HEAD, TABLE = "lm_head.weight", "embedding.token.weight"
FEED_FORWARD_NORM, ATTENTION_NORM = "feed_forward_norm.", "attention_norm."


@dataclass(frozen=True)
class ModelSource:
    """A model whose tensors can be read by minilm's names.

    ``origins`` is empty for a run; of a Hugging Face folder, it has the mapping of the tensor that holds
    each of them, and its index there. ``factors`` are what tensors whose names end so are multiplied by;
    then all are read in float32.
    """

    folder: Path
    config: ModelConfig
    stored: Mapping[str, StoredTensor]
    origins: Mapping[str, tuple[TensorMapping, int]]
    is_run: bool
    own_tokenizer: Tokenizer | None = None  # one that is in no tokenizer.json
    factors: Mapping[str, float] = field(default_factory=dict)

    def tokenizer(self) -> Tokenizer:
        """Raises FormatError for a missing or broken file, and for more tokens than the model has."""
        path = self.folder / run_files.TOKENIZER
        return self.own_tokenizer or load_tokenizer(path, self.config.vocab_size)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor, by minilm's names."""
        return declared_shapes(self.config)

    def stored_as(self, config: ModelConfig) -> ModelSource:
        """The same model with the tensors of ``config``: biases of zeros besides, or an untied head."""
        return replace(self, config=config)

    def dtype(self, name: str) -> str:
        """What a tensor is read in."""
        if self.factors:
            return "float32"
        if not self._is_stored(name):
            name = TABLE
        return self.stored[self.origins[name][0].hf_name if self.origins else name].dtype

    def read(self, name: str) -> Array:
        """One tensor, by minilm's name."""
        if not self._is_stored(name):
            return self._added(name)
        if not self.origins:
            return tensor_io.read(self.stored[name])
        mapping, number = self.origins[name]
        tensor = tensor_io.read(self.stored[mapping.hf_name])
        rows = [self.shapes[each][0] for each in mapping.minilm_names]
        # The first rows of OPT's positions are of padding.
        part = mapping.split(tensor, rows, self.config)[number][-self.shapes[name][0] :]
        if not self.factors:
            return part
        factor = next((f for end, f in self.factors.items() if name.endswith(end)), 1.0)
        scaled: Array = as_float32(part) * np.float32(factor)
        return scaled

    def _is_stored(self, name: str) -> bool:
        return name in (self.origins or self.stored)

    def _added(self, name: str) -> Array:
        """A tensor that the stored model does without."""
        if name == HEAD:
            return self.read(TABLE)
        values = np.ones if name.endswith("norm.weight") else np.zeros
        return values(self.shapes[name], tensor_io.NUMPY[self.dtype(name)])

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


def as_float32(values: Array) -> Array:
    """The same numbers in float32; ``values`` may be of bfloat16 as `tensor_io.read` has it."""
    if values.dtype == tensor_io.NUMPY["bfloat16"]:  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(values, dtype=np.float32)


def declared_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter, a tied head left out: as the ledger declares them."""
    return {tensor.name: tensor.shape for tensor in minilm_layout(config).named_tensors()}


def open_source(folder: Path) -> ModelSource:
    """Read the headers of a run or a Hugging Face folder, or of the snapshot in a cache of the Hub.

    Raises InputError for another folder, ConfigError for a field that minilm cannot follow, FormatError
    naming the first tensor that is not as the configuration says.
    """
    folder = snapshot_of_cache(folder) or folder
    if not (folder / run_files.CONFIG).is_file():
        raise InputError(folder, "no config.json", "the folder of a run or of a Hugging Face model")
    fields = read_object(folder / run_files.CONFIG)
    if fields.get("family") == run_files.FAMILY:
        config = run_files.read_config(folder / run_files.CONFIG)
        if fields.get("base"):
            remedy = "`minilm finetune RUN --merge --out DIR` makes one model of it and its base"
            raise InputError(folder, "an adapter", "a whole model", remedy)
        path = folder / run_files.WEIGHTS
        stored = {tensor.name: tensor for tensor in formats.read(path).tensors}
        check_same_tensors(path, _shapes(stored), declared_shapes(config))
        return ModelSource(folder, config, stored, {}, is_run=True)
    with naming_file(folder / run_files.CONFIG):
        return _open_hugging_face(folder, fields)


def _open_hugging_face(folder: Path, fields: dict[str, Any]) -> ModelSource:
    architecture = importable_for(fields)
    weights = find_weights(folder)
    if weights is None:
        raise InputError(folder, "no weights", "model.safetensors or its shards")
    layout = architecture.layout(fields)
    if layout.ties and fields.get(TIED) is None and _has_own_head(weights, layout):
        fields[TIED] = False
        layout = architecture.layout(fields)
    config = architecture.model_config(fields)
    stored = _stored_by_declared_name(weights, layout)
    if isinstance(architecture, Importable):
        mappings = match_tensors(layout, config, "joined")
    else:
        mappings = tensor_mappings(architecture, config)
    wanted = {tensor.name: tensor.shape for tensor in layout.named_tensors()}
    check_same_tensors(weights, _shapes(stored), wanted)
    origins = {
        name: (mapping, number)
        for mapping in mappings
        for number, name in enumerate(mapping.minilm_names)
    }
    if isinstance(architecture, Importable):
        _map_shared(origins, config)
        factors = architecture.factors(fields, config)
        return ModelSource(folder, config, stored, origins, is_run=False, factors=factors)
    return ModelSource(folder, config, stored, origins, is_run=False)


def _map_shared(origins: dict[str, tuple[TensorMapping, int]], config: ModelConfig) -> None:
    """What is two tensors in minilm and one in the file: a tied head, the norm of a parallel block."""
    for name in declared_shapes(config):
        original = TABLE if name == HEAD else name.replace(FEED_FORWARD_NORM, ATTENTION_NORM)
        if name not in origins and original in origins:
            origins[name] = origins[original]


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


def _has_own_head(path: Path, layout: Layout) -> bool:
    """Whether a head with values of its own is stored: then transformers 5 does not tie it by default."""
    tensors = {tensor.name: tensor for tensor in formats.read_model(path).tensors}
    head = tensors.get(USUAL_HEAD)
    table = tensors.get(layout.ties[0][1])
    if head is None or table is None:
        return False
    return not np.array_equal(tensor_io.read(head), tensor_io.read(table))


def _check_same_values(
    path: Path, head: StoredTensor, stored: StoredTensor | None, table: str
) -> None:
    """A head that is stored although it is tied must be the table."""
    if stored is None or not np.array_equal(tensor_io.read(head), tensor_io.read(stored)):
        raise FormatError(
            path,
            f"{head.name} that is not {table}",
            "tie_word_embeddings false, or the same values",
        )
