"""A model as one GGUF file that llama.cpp runs, written by gguf's own writer and quantizers, streamed.

Tensors and keys: ggml-org/llama.cpp, `gguf-py/gguf/constants.py` and `convert_hf_to_gguf.py`. Its
graphs fix what a config.json would choose: the activation, and that no layer has a window.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from minilm.architectures.conversion import Architecture, GgufGraph, find_exportable
from minilm.architectures.gguf_layout import in_gguf_names
from minilm.architectures.gguf_names import KEYS
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.tensor_map import tensor_mappings
from minilm.config import ModelConfig
from minilm.errors import ConfigError, MissingExtraError, TokenizerError
from minilm.formats import tensor_io
from minilm.formats.tensor_io import Array
from minilm.interop.model_source import ModelSource
from minilm.ledger import components
from minilm.runs import files as run_files
from minilm.text.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    Tokenizer,
    load_tokenizer,
)

if TYPE_CHECKING:
    import gguf


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
            self._quantize(_as_float32(rows), self._ggml_type).tofile(stream)


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
    config = source.config
    architecture = find_exportable(config)
    gguf_architecture = MODEL_TYPES[architecture.model_type].gguf
    if config.feed_forward not in architecture.gguf.activations:
        raise ConfigError(
            "model.feed_forward",
            config.feed_forward,
            f"{' or '.join(architecture.gguf.activations)}, which llama.cpp's {gguf_architecture} computes",
        )
    if 0 < config.sliding_window < config.context_length:
        raise ConfigError(
            "model.sliding_window",
            f"{config.sliding_window} in a context of {config.context_length}",
            f"0: llama.cpp's {gguf_architecture} attends to all tokens",
        )
    tokenizer = load_tokenizer(source.folder / run_files.TOKENIZER, config.vocab_size)
    writer = gguf.GGUFWriter(path, gguf_architecture)
    writer.add_name(name)
    _add_sizes(writer, config, architecture.gguf)
    _add_tokenizer(writer, tokenizer, config.vocab_size)
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
    if graph.parallel_residual:
        writer.add_parallel_residual(config.parallel_residual)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, vocab_size: int) -> None:
    if not isinstance(tokenizer, (ByteTokenizer, BPETokenizer)):
        raise TokenizerError(
            "tokenizer.json",
            f"a {tokenizer.kind} tokenizer",
            "bytes or BPE in GPT-2's style, which llama.cpp supports",
        )
    import gguf

    content = json.loads(tokenizer.to_json())
    tokens = [f"[PAD{number}]" for number in range(vocab_size)]
    types = [gguf.TokenType.UNUSED] * vocab_size
    for text, number in content["model"]["vocab"].items():
        tokens[number], types[number] = text, gguf.TokenType.NORMAL
    for added in content.get("added_tokens", []):
        tokens[added["id"]], types[added["id"]] = added["content"], gguf.TokenType.CONTROL
    if isinstance(tokenizer, ByteTokenizer):
        types[0] = gguf.TokenType.CONTROL  # the zero byte, which ends a text
    merges = [" ".join(pair) for pair in content["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # The list may not be empty: zero bytes, which no text has, would become a token that is none.
    writer.add_token_merges(merges or ["\u0100 \u0100"])
    if tokenizer.end_of_text is not None:
        writer.add_bos_token_id(tokenizer.end_of_text)
        writer.add_eos_token_id(tokenizer.end_of_text)
    writer.add_add_bos_token(False)


def _entries(source: ModelSource, architecture: Architecture) -> Iterator[_Entry]:
    """Every tensor of the file, in the order of the architecture's declaration."""
    config, graph = source.config, architecture.gguf
    mappings = {each.hf_name: each for each in tensor_mappings(architecture, config)}
    fields = architecture.config_json(config)
    if graph.assumed_bias:
        fields[graph.assumed_bias] = True
    layout = architecture.layout(fields)

    heads = {
        components.ATTENTION_QUERY: config.num_heads,
        components.ATTENTION_KEY: config.num_kv_heads,
    }

    def read(names: Sequence[str], component: str) -> Array:
        tensors = source.read_joined(names)
        if graph.adjacent_rotary and component in heads:
            return _adjacent_halves(tensors[0], heads[component])
        return tensors[0] if len(tensors) == 1 else np.concatenate(tensors)

    if config.rope_scaling == "llama3":
        rows = (config.rotary_dim // 2,)
        yield _Entry("rope_freqs.weight", rows, lambda: _rope_frequency_factors(config))
    named = zip(layout.named_tensors(), in_gguf_names(layout).named_tensors(), strict=True)
    for hf, tensor in named:
        if hf.name in mappings:
            values = partial(read, mappings[hf.name].minilm_names, tensor.component)
        else:  # a bias that the graph adds and the model has not
            values = partial(np.zeros, tensor.shape, np.float32)
        yield _Entry(tensor.name, tensor.shape, values)


def _as_float32(values: Array) -> Array:
    if values.dtype == tensor_io.NUMPY["bfloat16"]:  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(values, dtype=np.float32)


def _rope_frequency_factors(config: ModelConfig) -> Array:
    """(rotary_dim / 2,): what each frequency is divided by, beside RoPE without scaling."""
    import torch

    from minilm.model.rope import frequencies

    cpu = torch.device("cpu")
    plain = frequencies(replace(config, rope_scaling="none"), cpu)
    return (plain / frequencies(config, cpu)).numpy()


def _adjacent_halves(values: Array, heads: int) -> Array:
    """Rows i and i + k/2 of a head side by side: the pairs that llama.cpp's Llama rotates."""
    shape = values.shape
    halves = values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:])
    adjacent: Array = halves.swapaxes(1, 2).reshape(shape)
    return adjacent
