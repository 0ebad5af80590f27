"""What is converted: a run, or another program's model read as one; its weights under minilm's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from minilm import formats
from minilm.architectures.conversion import Importable, importable_for
from minilm.architectures.minilm import layout as minilm_layout
from minilm.architectures.tensor_map import TensorMapping, match_tensors, tensor_mappings
from minilm.config import ModelConfig
from minilm.dtypes import GGUF_BLOCKS
from minilm.errors import FormatError, InputError, naming_file
from minilm.formats import tensor_io
from minilm.formats.checks import check_same_tensors
from minilm.formats.header import StoredTensor
from minilm.formats.huggingface import find_weights
from minilm.formats.json_file import read_object
from minilm.formats.tensor_io import Array, as_float32
from minilm.inspection.folders import snapshot_of_cache
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.quantization.packing import Packing, Rounded, quantized_matrices, read_rounded
from minilm.quantization.packings import packing_of
from minilm.quantization.sparse_packing import SparsePacking, sparse_packing_of
from minilm.runs import files as run_files
from minilm.text.tokenizer_file import load_tokenizer
from minilm.text.tokenizers import Tokenizer
from minilm.values.read import Reader, chunks

# What some files call the head, whatever their architecture calls it.
USUAL_HEAD = "lm_head.weight"
TIED = "tie_word_embeddings"
# minilm's names.
HEAD, TABLE, BLOCKS = "lm_head.weight", "embedding.token.weight", "blocks"
FEED_FORWARD_NORM, ATTENTION_NORM = "feed_forward_norm.", "attention_norm."


@dataclass(frozen=True)
class ModelSource:
    """A model whose tensors can be read by minilm's names.

    ``origins`` is empty for a run; of another program's model, it has the mapping of the tensor that holds
    each of them, and its index there. GGUF's blocks are read as float32. ``factors`` are what tensors
    whose names end so are multiplied by; then all are read in float32. ``block_order`` is set where each
    layer of ``config`` has a block of its own and the file has shared ones: of each layer, the number of
    its block there. ``packing`` is how a quantized run stores its matrices. Those of a quantized source are
    read dequantized, those of a Hugging Face folder and its sparse ones by the functions of ``packed``;
    ``dequantized_from`` is their format.
    """

    folder: Path
    config: ModelConfig
    stored: Mapping[str, StoredTensor]
    origins: Mapping[str, tuple[TensorMapping, int]]
    is_run: bool
    own_tokenizer: Tokenizer | None = None  # one that is in no tokenizer.json
    factors: Mapping[str, float] = field(default_factory=dict)
    block_order: tuple[int, ...] = ()
    packing: Packing | None = None
    dequantized_from: str = ""
    packed: Mapping[str, Callable[[], Array]] = field(default_factory=dict)

    def tokenizer(self) -> Tokenizer:
        """Raises FormatError for a missing or broken file, and for more tokens than the model has."""
        path = self.folder / run_files.TOKENIZER
        return self.own_tokenizer or load_tokenizer(path, self.config.vocab_size)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor, by minilm's names."""
        return declared_shapes(self.config)

    @cached_property
    def quantized(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the matrices that are quantized, by name."""
        return quantized_matrices(minilm_layout(self.config)) if self.packing else {}

    def read_rounded(self, name: str) -> Rounded:
        """Codes and scales of a quantized matrix."""
        assert self.packing is not None
        name = self._stored_name(name)
        return read_rounded(self.packing, name, self.shapes[name], self.stored)

    def stored_as(self, config: ModelConfig) -> ModelSource:
        """The same model with the tensors of ``config``: biases of zeros besides, or an untied head."""
        return replace(self, config=config)

    def unshared(self) -> ModelSource:
        """The same model with a copy of a shared block in each of its layers."""
        config = replace(self.config, shared_layers=0)
        return replace(self, config=config, block_order=self.config.block_order)

    def dtype(self, name: str) -> str:
        """What a tensor is read in."""
        name = self._stored_name(name)
        if self.factors or name in self.quantized:
            return "float32"
        if not self._is_stored(name):
            name = TABLE
        dtype = self.stored[self.origins[name][0].hf_name if self.origins else name].dtype
        return "float32" if dtype in GGUF_BLOCKS else dtype

    def read(self, name: str) -> Array:
        """One tensor, by minilm's name."""
        if self.packing is not None and self._stored_name(name) in self.quantized:
            return self.packing.values(self.read_rounded(name))
        name = self._stored_name(name)
        if not self._is_stored(name):
            return self._added(name)
        if not self.origins:
            return tensor_io.read(self.stored[name])
        mapping, number = self.origins[name]
        packed = self.packed.get(mapping.hf_name)
        tensor = packed() if packed else read_dequantized(self.stored[mapping.hf_name])
        rows = [self.shapes[each][0] for each in mapping.minilm_names]
        # The first rows of OPT's positions are of padding.
        part = mapping.split(tensor, rows, self.config)[number][-self.shapes[name][0] :]
        if not self.factors:
            return part
        factor = next((f for end, f in self.factors.items() if name.endswith(end)), 1.0)
        scaled: Array = as_float32(part) * np.float32(factor)
        return scaled

    def _stored_name(self, name: str) -> str:
        """The name in the file of what is in a shared block."""
        part, _, rest = name.partition(".")
        if not self.block_order or part != BLOCKS:
            return name
        layer, _, tensor = rest.partition(".")
        return f"{BLOCKS}.{self.block_order[int(layer)]}.{tensor}"

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


def read_dequantized(tensor: StoredTensor) -> Array:
    """As `tensor_io.read`; the blocks of a GGUF file, which must be readable, in float32."""
    if tensor.dtype not in GGUF_BLOCKS:
        return tensor_io.read(tensor)
    values = np.empty(tensor.count, np.float32)
    with Reader(tensor) as reader:
        for start, count in chunks(tensor):
            values[start : start + count] = reader.values(start, count)
    return values.reshape(tensor.shape)


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
        if fields.get("base"):
            remedy = "`minilm finetune RUN --merge --out DIR` makes one model of it and its base"
            raise InputError(folder, "an adapter", "a whole model", remedy)
        return _open_run(folder)
    with naming_file(folder / run_files.CONFIG):
        return _open_hugging_face(folder, fields)


def _open_run(folder: Path) -> ModelSource:
    config = run_files.read_config(folder / run_files.CONFIG)
    path, packing = folder / run_files.WEIGHTS, None
    stored = {tensor.name: tensor for tensor in formats.read(path).tensors}
    shapes = declared_shapes(config)
    if quantization := run_files.read_quantization(folder / run_files.CONFIG):
        with naming_file(folder / run_files.CONFIG):
            packing = packing_of(quantization)
        for name, shape in quantized_matrices(minilm_layout(config)).items():
            del shapes[name]
            shapes |= {tensor.name: tensor.shape for tensor in packing.tensors(name, shape)}
    check_same_tensors(path, shapes_of(stored), shapes)
    from_format = packing.format if packing else ""
    return ModelSource(
        folder, config, stored, {}, is_run=True, packing=packing, dequantized_from=from_format
    )


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
    packed, from_format = {}, ""
    if isinstance(quantization := fields.get("quantization_config"), dict):
        if sparse := sparse_packing_of(quantization):
            packed = _take_sparse(stored, sparse, layout)
        else:
            packing = packing_of(quantization)
            packed = _take_packed(stored, packing, layout)
            from_format = packing.format if packed else ""
    if isinstance(architecture, Importable):
        mappings = match_tensors(layout, config, "joined")
    else:
        mappings = tensor_mappings(architecture, config)
    wanted = {tensor.name: tensor.shape for tensor in layout.named_tensors()}
    check_same_tensors(weights, shapes_of(stored), wanted)
    origins = {
        name: (mapping, number)
        for mapping in mappings
        for number, name in enumerate(mapping.minilm_names)
    }
    factors: Mapping[str, float] = {}
    if isinstance(architecture, Importable):
        _map_shared(origins, config)
        factors = architecture.factors(fields, config)
    return ModelSource(
        folder,
        config,
        stored,
        origins,
        is_run=False,
        factors=factors,
        dequantized_from=from_format,
        packed=packed,
    )


def _take_packed(
    stored: dict[str, StoredTensor], packing: Packing, layout: Layout
) -> dict[str, Callable[[], Array]]:
    """What reads each quantized matrix; in ``stored`` it replaces the tensors that it is packed in."""
    packed: dict[str, Callable[[], Array]] = {}
    for name, shape in quantized_matrices(layout).items():
        parts = {part.name: stored.pop(part.name, None) for part in packing.tensors(name, shape)}
        if all(parts.values()):  # else it is missing in the comparison that follows
            tensors = {part: tensor for part, tensor in parts.items() if tensor}
            packed[name] = partial(_dequantized, packing, name, shape, tensors)
            stored[name] = StoredTensor(name, "float32", shape)
    return packed


def _take_sparse(
    stored: dict[str, StoredTensor], packing: SparsePacking, layout: Layout
) -> dict[str, Callable[[], Array]]:
    """What reads each matrix with zeros; as `_take_packed`."""
    packed: dict[str, Callable[[], Array]] = {}
    for name, shape in quantized_matrices(layout).items():
        names = packing.names(name)
        if all(part in stored for part in names):
            parts = {part: stored.pop(part) for part in names}
            packed[name] = partial(packing.read, name, shape, parts)
            stored[name] = StoredTensor(name, parts[names[0]].dtype, shape)
    return packed


def _dequantized(
    packing: Packing, name: str, shape: tuple[int, ...], stored: Mapping[str, StoredTensor]
) -> Array:
    return packing.values(read_rounded(packing, name, shape, stored))


def _map_shared(origins: dict[str, tuple[TensorMapping, int]], config: ModelConfig) -> None:
    """What is two tensors in minilm and one in the file: a tied head, the norm of a parallel block."""
    for name in declared_shapes(config):
        original = TABLE if name == HEAD else name.replace(FEED_FORWARD_NORM, ATTENTION_NORM)
        if name not in origins and original in origins:
            origins[name] = origins[original]


def shapes_of(stored: Mapping[str, StoredTensor]) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in stored.items()}


def _stored_by_declared_name(path: Path, layout: Layout) -> dict[str, StoredTensor]:
    """The parameters of a file, with the prefix that some files leave out, a tied head once."""
    ignored = {name.format(i=i) for name in layout.ignored for i in range(layout.symbols["L"])}
    head = head_name(layout)
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


def head_name(layout: Layout) -> str:
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
