"""A GGUF file read as a model to convert: its metadata as a configuration, its tensors by minilm's names.

Keys: ggml-org/llama.cpp, `gguf-py/gguf/constants.py`; what is where no key says it, `src/llama-model.cpp`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minilm import formats
from minilm.architectures.conversion import (
    Architecture,
    GgufGraph,
    Importable,
    declared_fields,
    importable_for,
)
from minilm.architectures.gguf_layout import (
    GGUF_MODEL_TYPES,
    REQUIRED,
    config_fields,
    gguf_layout,
)
from minilm.architectures.gguf_names import ACTIVATION, KEYS
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.shared_fields import read_activation
from minilm.architectures.tensor_map import gguf_mappings
from minilm.config import ModelConfig
from minilm.dtypes import GGUF_BLOCKS
from minilm.errors import ConfigError, FormatError
from minilm.formats import tensor_io
from minilm.formats.checks import check_same_tensors
from minilm.formats.gguf import read_values
from minilm.formats.header import Header, StoredTensor
from minilm.inspection.gguf_files import special_file
from minilm.inspection.tied_copies import with_copied_head
from minilm.interop.gguf_vocabulary import write_tokenizer
from minilm.interop.model_source import ModelSource, declared_shapes, read_dequantized, shapes_of
from minilm.interop.rope_factors import ROPE_FACTORS, rope_scaling
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.safe_text import short_repr
from minilm.values.read import why_unread

ARCHITECTURE = "general.architecture"
# The biases of these are all there, or none is.
_BIASED_TOGETHER = (
    (components.ATTENTION_QUERY, components.ATTENTION_KEY, components.ATTENTION_VALUE),
    (components.FEED_FORWARD_GATE, components.FEED_FORWARD_UP, components.FEED_FORWARD_DOWN),
)


def open_gguf(path: Path, folder: Path) -> ModelSource:
    """Read the header of a GGUF file; the files of its tokenizer are written into ``folder``, which is empty.

    Raises FormatError for a file that is broken, ConfigError for a model and TokenizerError for a
    tokenizer that minilm does not run.
    """
    header = _with_tied_head(formats.read(path))
    special = special_file(header)
    if special is not None:
        raise FormatError(path, special.noun, "a model")
    architecture = _architecture(path, header)
    name = header.metadata[ARCHITECTURE]
    metadata = _Metadata(path, read_values(path, f"{name}.", "tokenizer.", "split."), name)
    _check_sizes(metadata, header)
    fields, layout = config_fields(header), gguf_layout(header)
    if fields is None or layout is None:
        raise FormatError(path, "sizes that are not in its first file", "them there")
    stored = {tensor.name: tensor for tensor in header.tensors}
    for tied, _ in layout.ties:
        stored.pop(tied, None)
    factors = stored.pop(ROPE_FACTORS, None) if metadata.architecture == "llama" else None
    expected = {tensor.name: tensor.shape for tensor in layout.named_tensors()}
    check_same_tensors(path, shapes_of(stored), expected, "its metadata")
    _check_biases(path, layout)
    _check_readable(path, stored)
    graph = architecture.gguf if isinstance(architecture, Architecture) else None
    config = _config(metadata, architecture.minilm_fields(fields), graph, layout)
    if factors is not None:
        _check_readable(path, {factors.name: factors})
        config = replace(config, **rope_scaling(config, read_dequantized(factors)))
    origins = {
        name: (mapping, number)
        for mapping in gguf_mappings(layout, graph, config)
        for number, name in enumerate(mapping.minilm_names)
    }
    assert origins.keys() == declared_shapes(config).keys()
    write_tokenizer(path, metadata.values, folder, config)
    return ModelSource(folder, config, stored, origins, is_run=False)


def dequantized_types(source: ModelSource) -> list[str]:
    """The types of blocks that are read as float32."""
    return sorted({tensor.dtype for tensor in source.stored.values()} & GGUF_BLOCKS.keys())


def _with_tied_head(header: Header) -> Header:
    """The header with a head that is a copy of the token table to the last byte."""
    tensors = {tensor.name: tensor for tensor in header.tensors}
    copied = with_copied_head(header, {})
    are_same = all(_same_bytes(tensors[head], tensors[table]) for head, table in copied.shared)
    return copied if are_same else header


def _same_bytes(first: StoredTensor, second: StoredTensor) -> bool:
    assert first.file is not None
    assert second.file is not None
    with first.file.open("rb") as one, second.file.open("rb") as other:
        one.seek(first.offset or 0)
        other.seek(second.offset or 0)
        left = min(first.nbytes, second.nbytes)
        while left > 0:
            size = min(left, tensor_io.CHUNK)
            if one.read(size) != other.read(size):
                return False
            left -= size
    return first.nbytes == second.nbytes


class _Metadata(NamedTuple):
    """The metadata of ``path``, and the value of general.architecture that begins the keys of the model."""

    path: Path
    values: Mapping[str, Any]
    architecture: str

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number of the model. Raises FormatError for another value, or none without a default."""
        name = f"{self.architecture}.{key}"
        value = self.values.get(name, default)
        if type(value) is float:
            with np.errstate(over="ignore"):  # the decimal number that a float32 stands for
                value = float(str(np.float32(value)))
        if type(value) not in (int, float) or not math.isfinite(value):
            got = f"no {name}" if value is None else f"{name} {short_repr(value)}"
            raise FormatError(self.path, got, "a finite number")
        number: float = value
        return number

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number. Raises FormatError for another one."""
        value = self.number(key, default)
        if type(value) is not int or value < 0:
            raise FormatError(self.path, f"{self.architecture}.{key} {value}", "a whole number")
        return value

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.values


def _architecture(path: Path, header: Header) -> Architecture | Importable:
    """Raises FormatError or ConfigError for one that minilm does not run, saying what is missing."""
    name = header.metadata.get(ARCHITECTURE, "")
    model_type = GGUF_MODEL_TYPES.get(name, "")
    entry = MODEL_TYPES.get(model_type)
    if entry is None or entry.gguf != name:
        got = f"{ARCHITECTURE} {short_repr(name)}" if name else f"no {ARCHITECTURE}"
        known = sorted(
            each
            for each, type_ in GGUF_MODEL_TYPES.items()
            if MODEL_TYPES[type_].gguf == each and _is_imported(type_)
        )
        raise FormatError(path, got, f"one of {', '.join(known)}")
    return importable_for({"model_type": model_type})


def _is_imported(model_type: str) -> bool:
    try:
        importable_for({"model_type": model_type})
    except ConfigError:
        return False
    return True


def _check_sizes(metadata: _Metadata, header: Header) -> None:
    """Raises FormatError for what `gguf_layout` makes no Layout of, and for experts."""
    split = metadata.values.get("split.no", 0)
    if split != 0:
        got = f"split {short_repr(split)} of a model, counted from 0"
        raise FormatError(metadata.path, got, "the first one")
    for key in ("context_length", *REQUIRED):
        metadata.size(key)
    for key in KEYS:
        if metadata.has(key):
            metadata.size(key, 0)
    names = {tensor.name for tensor in header.tensors}
    if metadata.size("expert_count", 0) or "blk.0.ffn_gate.0.weight" in names:
        raise FormatError(metadata.path, "a mixture of experts", "a dense model")
    heads, width = metadata.size("attention.head_count", 1), metadata.size("embedding_length", 1)
    key_length = metadata.size("attention.key_length", width // max(1, heads))
    value_length = metadata.size("attention.value_length", key_length)
    if key_length != value_length:
        got = f"keys of {key_length} and values of {value_length}"
        raise FormatError(metadata.path, got, "heads of one width")


def _check_biases(path: Path, layout: Layout) -> None:
    biased = {tensor.component for tensor in layout.tensors if tensor.name.endswith(".bias")}
    for group in _BIASED_TOGETHER:
        together = {tensor.component for tensor in layout.tensors} & set(group)
        if biased & together not in (set(), together):
            got = f"biases of {' and '.join(sorted(biased & together))} alone"
            raise FormatError(path, got, f"of all of {', '.join(sorted(together))} or of none")


def _check_readable(path: Path, stored: Mapping[str, StoredTensor]) -> None:
    """Raises FormatError for a type that is not decoded."""
    for tensor in stored.values():
        is_block = tensor.dtype in GGUF_BLOCKS
        reason = why_unread(tensor)
        if reason is None and not is_block and tensor.dtype not in tensor_io.NUMPY:
            reason = f"values of {tensor.dtype}"
        if reason is not None:
            known = f"{', '.join(tensor_io.NUMPY)} or blocks that are decoded"
            raise FormatError(path, f"{tensor.name}: {reason}", known)


def _config(
    metadata: _Metadata, fields: dict[str, Any], graph: GgufGraph | None, layout: Layout
) -> ModelConfig:
    """The model of the metadata, where ``fields`` are those of the architecture's published models.

    Raises ConfigError or FormatError for what cannot be, or what minilm does not compute.
    """
    config = fields | declared_fields(layout, {})
    if metadata.has(ACTIVATION):
        key = f"{metadata.architecture}.{ACTIVATION}"
        is_gated = config["feed_forward"] in ("swiglu", "geglu")
        config["feed_forward"] = read_activation(metadata.values, key, "", gated=is_gated)
    biased = {tensor.component for tensor in layout.tensors if tensor.name.endswith(".bias")}
    has_bias = components.FINAL_NORM in biased
    epsilon = "layer_norm_epsilon" if has_bias else "layer_norm_rms_epsilon"
    config |= {
        "norm": "layernorm" if has_bias else "rmsnorm",
        "norm_epsilon": float(metadata.number(f"attention.{epsilon}")),
        "sliding_window": metadata.size("attention.sliding_window", config["sliding_window"]),
    }
    if config["position"] == "rope":
        config |= _rope(metadata, config["head_dim"])
    if graph is not None and graph.parallel_residual:
        value = metadata.values.get(f"{metadata.architecture}.use_parallel_residual", True)
        if type(value) is not bool:
            got = f"use_parallel_residual {short_repr(value)}"
            raise FormatError(metadata.path, got, "true or false")
        config["parallel_residual"] = value
    return ModelConfig(**config)


def _rope(metadata: _Metadata, head_dim: int) -> dict[str, Any]:
    """The fields of RoPE. Raises FormatError for a scaling that minilm does not compute."""
    key = f"{metadata.architecture}.rope.scaling.type"
    kind = metadata.values.get(key, "linear")
    if kind not in ("none", "linear"):
        raise FormatError(metadata.path, f"{key} {short_repr(kind)}", "none or linear")
    old_name = metadata.number("rope.scale_linear", 1)
    factor = float(metadata.number("rope.scaling.factor", old_name)) or 1.0
    is_scaled = kind == "linear" and factor != 1
    return {
        "rope_theta": float(metadata.number("rope.freq_base", 10000.0)),
        "rotary_dim": metadata.size("rope.dimension_count", head_dim),
        "rope_scaling": "linear" if is_scaled else "none",
        "rope_factor": factor if is_scaled else 1.0,
    }
