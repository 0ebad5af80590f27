"""A model as one GGUF file that llama.cpp runs, written by gguf's own writer and quantizers, streamed.

Tensors and keys: ggml-org/llama.cpp, `gguf-py/gguf/constants.py` and `convert_hf_to_gguf.py`. Its
graphs fix what a config.json would choose: the activation, and that no layer has a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from minilm.architectures.conversion import (
    Architecture,
    GgufGraph,
    UnsupportedField,
    exportable,
)
from minilm.architectures.gguf_names import ACTIVATION, KEYS
from minilm.architectures.gguf_parts import in_gguf_names
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.shared_fields import HF_ACTIVATIONS
from minilm.architectures.tensor_map import TensorMapping, gguf_mappings
from minilm.config import ModelConfig
from minilm.errors import ConfigError, MissingExtraError
from minilm.formats import tensor_io
from minilm.formats.tensor_io import Array, as_float32
from minilm.interop.gguf_tokenizer import add_tokenizer
from minilm.interop.model_source import ModelSource
from minilm.interop.rope_factors import ROPE_FACTORS, rope_factors

if TYPE_CHECKING:
    import gguf

LARGEST_LAYER_COUNT = 512  # LLAMA_MAX_LAYERS in llama.cpp's src/llama-hparams.h


@dataclass(frozen=True)
class _Entry:
    """A tensor of the file: its name, its shape, and what makes its values, as they are stored."""

    name: str
    shape: tuple[int, ...]
    values: Callable[[], Array]


class _Quantized:
    """What gguf's writer asks of an array, so that it is quantized some rows at a time."""

    def __init__(
        self, entry: _Entry, ggml_type: Any, quantize: Callable[[Array, Any], Array]
    ) -> None:
        self._values, self._ggml_type, self._quantize = entry.values(), ggml_type, quantize
        self.nbytes = _nbytes(entry.shape, ggml_type)

    def tofile(self, stream: BinaryIO) -> None:
        for rows in tensor_io.chunks(self._values):
            self._quantize(as_float32(rows), self._ggml_type).tofile(stream)


def _nbytes(shape: tuple[int, ...], ggml_type: Any) -> int:
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[ggml_type]
    return int(math.prod(shape) // block * size)


def export(source: ModelSource, path: Path, file_format: str, name: str) -> str:
    """Write ``path``; return llama.cpp's name of the architecture.

    Raises ConfigError for a model and TokenizerError for a tokenizer that llama.cpp does not support,
    MissingExtraError without the package gguf.
    """
    try:
        import gguf
    except ImportError:
        raise MissingExtraError("gguf", "gguf", "--to gguf") from None
    architecture = find_supported(source.config)
    gguf_architecture = MODEL_TYPES[architecture.model_type].gguf
    config = replace(architecture.stored_config(source.config), **architecture.gguf.stored_fields)
    source = source.stored_as(config)
    tokenizer = source.tokenizer()
    writer = gguf.GGUFWriter(path, gguf_architecture)
    writer.add_name(name)
    _add_sizes(writer, config, architecture.gguf)
    add_tokenizer(writer, source.folder, tokenizer, config.vocab_size)
    matrix_type = gguf.GGMLQuantizationType[file_format.upper()]
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    types = {"f32": "ALL_F32", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
    file_type = types.get(file_format, f"MOSTLY_{file_format.upper()}")
    writer.add_file_type(gguf.LlamaFileType[file_type])
    entries = list(_entries(source, architecture))
    ggml_types = [_ggml_type(gguf, entry, matrix_type) for entry in entries]
    for entry, ggml_type in zip(entries, ggml_types, strict=True):
        shape = gguf.quant_shape_to_byte_shape(entry.shape, ggml_type)
        nbytes = _nbytes(entry.shape, ggml_type)
        writer.add_tensor_info(entry.name, shape, np.dtype(np.uint8), nbytes, raw_dtype=ggml_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for entry, ggml_type in zip(entries, ggml_types, strict=True):
        writer.write_tensor_data(_Quantized(entry, ggml_type, gguf.quants.quantize))
    writer.close()
    return gguf_architecture


def stored_values(name: str, values: Array, file_format: str) -> tuple[Array, str]:
    """What llama.cpp reads of a tensor of minilm from a file of ``file_format``, and its type there.

    Blocks lie within a row, so that it does not matter whose rows are joined, or in which order.
    """
    import gguf

    position = name == "embedding.position.weight"
    entry = _Entry("position_embd" if position else name, values.shape, lambda: values)
    matrix_type = gguf.GGMLQuantizationType[file_format.upper()]
    ggml_type = _ggml_type(gguf, entry, matrix_type)
    stored = gguf.quants.quantize(values, ggml_type)
    read: Array = gguf.quants.dequantize(stored, ggml_type)
    return read.reshape(values.shape), ggml_type.name.lower()


def find_supported(config: ModelConfig) -> Architecture:
    """The first architecture whose graph in llama.cpp computes ``config``.

    Raises ConfigError naming the field in the way.
    """
    architectures = exportable(config)
    for architecture in architectures:
        if not _unsupported_fields(architecture, config):
            return architecture
    field, expected = _unsupported_fields(architectures[0], config)[0]
    graph = MODEL_TYPES[architectures[0].model_type].gguf
    got = str(getattr(config, field))
    if field == "sliding_window":
        got += f" in a context of {config.context_length}"
    raise ConfigError(f"model.{field}", got, f"{expected}, for llama.cpp's {graph}")


def _unsupported_fields(architecture: Architecture, config: ModelConfig) -> list[UnsupportedField]:
    too_deep = config.num_layers > LARGEST_LAYER_COUNT
    depth = [("num_layers", f"at most {LARGEST_LAYER_COUNT}")] if too_deep else []
    return architecture.gguf.unsupported_fields(config) + depth


def _ggml_type(gguf: Any, entry: _Entry, matrix_type: Any) -> Any:
    """Vectors stay float32; a matrix whose rows do not fill the quantizer's blocks becomes float16."""
    types = gguf.GGMLQuantizationType
    if len(entry.shape) < 2 or entry.name.startswith("position_embd"):
        return types.F32
    block, _ = gguf.GGML_QUANT_SIZES[matrix_type]
    return matrix_type if entry.shape[-1] % block == 0 else types.F16


def _add_sizes(writer: gguf.GGUFWriter, config: ModelConfig, graph: GgufGraph) -> None:
    for key, (field, _) in KEYS.items():
        if field:
            writer.add_uint32(f"{writer.arch}.{key}", getattr(config, field))
    if config.norm == "rmsnorm":
        writer.add_layer_norm_rms_eps(config.norm_epsilon)
    else:
        writer.add_layer_norm_eps(config.norm_epsilon)
    if config.position == "rope":
        writer.add_rope_dimension_count(config.rotary_dim)
        writer.add_rope_freq_base(config.rope_theta)
    if config.rope_scaling == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_factor)
    if config.head_dim * config.num_heads != config.d_model or graph.head_dim:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if not config.gated:  # llama.cpp has one GELU for both
        writer.add_string(f"{writer.arch}.{ACTIVATION}", HF_ACTIVATIONS[config.feed_forward])
    if graph.parallel_residual:
        writer.add_parallel_residual(config.parallel_residual)


def _entries(source: ModelSource, architecture: Architecture) -> Iterator[_Entry]:
    """Every tensor of the file, in the order of the architecture's declaration."""
    config = source.config
    layout = in_gguf_names(architecture.layout(architecture.config_json(config)))

    def values_of(mapping: TensorMapping) -> Array:
        return mapping.join(source.read_joined(mapping.minilm_names), config)

    if config.rope_scaling == "llama3":
        rows = (config.rotary_dim // 2,)
        yield _Entry(ROPE_FACTORS, rows, lambda: rope_factors(config))
    mappings = gguf_mappings(layout, architecture.gguf, config)
    for mapping, tensor in zip(mappings, layout.named_tensors(), strict=True):
        yield _Entry(tensor.name, tensor.shape, partial(values_of, mapping))
