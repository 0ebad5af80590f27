"""A model as one GGUF file that llama.cpp runs, written by gguf's own writer and quantizers, streamed.

Tensor names and keys: ggml-org/llama.cpp, `gguf-py/gguf/constants.py` and `convert_hf_to_gguf.py`. Its
graphs fix what a config.json would choose: the activation, and that a window is not heeded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from minilm.config import ModelConfig
from minilm.errors import ConfigError, MissingExtraError, TokenizerError
from minilm.formats import tensor_io
from minilm.formats.tensor_io import Array
from minilm.interop.architectures import fitting
from minilm.interop.model_source import Source
from minilm.runs import files as run_files
from minilm.text.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    Tokenizer,
    load_tokenizer,
)

if TYPE_CHECKING:
    import gguf

FORMATS = ("f32", "f16", "bf16", "q8_0", "q4_0")
# Of the architectures of transformers: its name there, whether queries and keys are turned by
# neighbouring elements instead of halves, whether they come as one matrix, and the only activation.
_NAMES = {
    "gpt2": ("gpt2", False, True, ("gelu", "gelu_tanh")),
    "gpt_neox": ("gptneox", False, True, ("gelu", "gelu_tanh")),
    "llama": ("llama", True, False, ("swiglu",)),
    "mistral": ("llama", True, False, ("swiglu",)),
    "qwen2": ("qwen2", False, False, ("swiglu",)),
    "qwen3": ("qwen3", False, False, ("swiglu",)),
    "starcoder2": ("starcoder2", False, False, ("gelu", "gelu_tanh")),
}
_BLOCK = {
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.query_norm": "attn_q_norm",
    "attention.key_norm": "attn_k_norm",
    "attention.output": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
}
_OUTSIDE = {
    "embedding.token": "token_embd",
    "embedding.position": "position_embd",
    "final_norm": "output_norm",
    "lm_head": "output",
}
# Biases that the graph adds whether the model has them or not.
_ALWAYS_BIASED = {"gpt2", "gptneox"}


@dataclass(frozen=True)
class _Entry:
    """A tensor of the file: its name, its shape, and what makes its values, as they are stored."""

    name: str
    shape: tuple[int, ...]
    values: Callable[[], Array]


class _Quantized:
    """What gguf's writer asks of an array, so that it is quantized some rows at a time."""

    def __init__(self, entry: _Entry, kind: Any, quantize: Callable[[Array, Any], Array]) -> None:
        self._values, self._kind, self._quantize = entry.values(), kind, quantize
        self.nbytes = _nbytes(entry.shape, kind)

    def tofile(self, stream: BinaryIO) -> None:
        for rows in tensor_io.chunks(self._values):
            self._quantize(_as_float32(rows), self._kind).tofile(stream)


def _nbytes(shape: tuple[int, ...], kind: Any) -> int:
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[kind]
    return int(math.prod(shape) // block * size)


def export(source: Source, path: Path, file_format: str, name: str) -> str:
    """Write ``path``; return llama.cpp's name of the architecture.

    Raises ConfigError for a model and TokenizerError for a tokenizer that llama.cpp has not,
    MissingExtraError without the package gguf.
    """
    try:
        import gguf
    except ImportError:
        raise MissingExtraError("gguf", "gguf", "--to gguf") from None
    config = source.config
    family = fitting(config).family
    architecture, _, _, activations = _NAMES[family]
    if config.feed_forward not in activations:
        raise ConfigError(
            "model.feed_forward",
            config.feed_forward,
            f"{' or '.join(activations)}, which llama.cpp's {architecture} computes",
        )
    if 0 < config.sliding_window < config.context_length:
        raise ConfigError(
            "model.sliding_window",
            f"{config.sliding_window} in a context of {config.context_length}",
            f"0: llama.cpp's {architecture} attends to all tokens",
        )
    tokenizer = load_tokenizer(source.folder / run_files.TOKENIZER, config.vocab_size)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(name)
    _add_sizes(writer, config, architecture)
    _add_tokenizer(writer, tokenizer, config.vocab_size)
    kind = gguf.GGMLQuantizationType[file_format.upper()]
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    types = {"f32": "ALL_F32", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
    file_type = types.get(file_format, f"MOSTLY_{file_format.upper()}")
    writer.add_file_type(gguf.LlamaFileType[file_type])
    entries = list(_entries(source, family))
    kinds = [_kind(gguf, entry, kind) for entry in entries]
    for entry, chosen in zip(entries, kinds, strict=True):
        size = gguf.quant_shape_to_byte_shape(entry.shape, chosen)
        nbytes = _nbytes(entry.shape, chosen)
        writer.add_tensor_info(entry.name, size, np.dtype(np.uint8), nbytes, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for entry, chosen in zip(entries, kinds, strict=True):
        writer.write_tensor_data(_Quantized(entry, chosen, gguf.quants.quantize))
    writer.close()
    return architecture


def _kind(gguf: Any, entry: _Entry, wanted: Any) -> Any:
    """Vectors stay float32; a matrix whose rows do not fill the quantizer's blocks becomes float16."""
    types = gguf.GGMLQuantizationType
    if len(entry.shape) < 2 or entry.name.startswith("position_embd"):
        return types.F32
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return wanted if entry.shape[-1] % block == 0 else types.F16


def _add_sizes(writer: gguf.GGUFWriter, config: ModelConfig, architecture: str) -> None:
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.d_feed_forward)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_vocab_size(config.vocab_size)
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
    if config.head_dim * config.num_heads != config.d_model or architecture == "qwen3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if architecture == "gptneox":
        writer.add_parallel_residual(config.parallel_residual)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, vocab_size: int) -> None:
    if not isinstance(tokenizer, (ByteTokenizer, BPETokenizer)):
        raise TokenizerError(
            "tokenizer.json",
            f"a {tokenizer.kind} tokenizer",
            "bytes or BPE in GPT-2's style, which llama.cpp has",
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


def _entries(source: Source, family: str) -> Iterator[_Entry]:
    """Every tensor of the file, in the order of the layers."""
    config = source.config
    architecture, neighbours, fused, _ = _NAMES[family]
    shapes = source.shapes

    def read(name: str) -> Array:
        values = source.read(name)
        turned = name.rpartition(".attention.")[2].partition(".")[0] in ("query", "key")
        if neighbours and turned:
            heads = config.num_heads if ".query." in name else config.num_kv_heads
            return _halves_to_neighbours(values, heads)
        return values

    def entry(theirs: str, ours: str, kind: str) -> Iterator[_Entry]:
        full = f"{ours}.{kind}"
        if full in shapes:
            yield _Entry(f"{theirs}.{kind}", shapes[full], lambda: read(full))
        elif kind == "bias" and architecture in _ALWAYS_BIASED and f"{ours}.weight" in shapes:
            rows = shapes[f"{ours}.weight"][:1]
            yield _Entry(f"{theirs}.{kind}", rows, lambda: np.zeros(rows, np.float32))

    def joined(layer: int, kind: str) -> Iterator[_Entry]:
        names = [f"blocks.{layer}.attention.{name}.{kind}" for name in ("query", "key", "value")]
        found = list(shapes[f"blocks.{layer}.attention.query.weight"])
        shape = (3 * found[0], *found[1:]) if kind == "weight" else (3 * found[0],)
        if names[0] in shapes:
            yield _Entry(
                f"blk.{layer}.attn_qkv.{kind}",
                shape,
                lambda: np.concatenate([read(name) for name in source.alike(names)]),
            )
        else:
            yield _Entry(f"blk.{layer}.attn_qkv.{kind}", shape, lambda: np.zeros(shape, np.float32))

    if config.rope_scaling == "llama3":
        yield _Entry("rope_freqs.weight", (config.rotary_dim // 2,), lambda: _slowness(config))
    for ours, theirs in _OUTSIDE.items():
        for kind in ("weight", "bias"):
            if ours in ("final_norm",) or kind == "weight":
                yield from entry(theirs, ours, kind)
    for layer in range(config.num_layers):
        for kind in ("weight", "bias"):
            if fused:
                yield from joined(layer, kind)
            for ours, theirs in _BLOCK.items():
                if fused and ours in ("attention.query", "attention.key", "attention.value"):
                    continue
                yield from entry(f"blk.{layer}.{theirs}", f"blocks.{layer}.{ours}", kind)


def _as_float32(values: Array) -> Array:
    if values.dtype == tensor_io.NUMPY["bfloat16"]:  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(values, dtype=np.float32)


def _slowness(config: ModelConfig) -> Array:
    """How many times slower each pair turns than without scaling."""
    import torch

    from minilm.model.rope import frequencies

    cpu = torch.device("cpu")
    plain = frequencies(replace(config, rope_scaling="none"), cpu)
    return (plain / frequencies(config, cpu)).numpy()


def _halves_to_neighbours(values: Array, heads: int) -> Array:
    """Rows i and i + k/2 of a head side by side: the pairs that llama.cpp's Llama turns."""
    shape = values.shape
    halves = values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:])
    neighbours: Array = halves.swapaxes(1, 2).reshape(shape)
    return neighbours
