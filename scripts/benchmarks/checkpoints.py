"""What the inspectors are timed on: configurations and files with real headers and sparse data."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

GPT2 = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}
LLAMA_3_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MIXTRAL = {
    "model_type": "mixtral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 32768,
}
LLAMA_405B = LLAMA_3_8B | {
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_hidden_layers": 126,
    "num_attention_heads": 128,
    "max_position_embeddings": 131072,
}

Shape = tuple[int, ...]
BLOCK = 16_000_000  # bytes of random data that are written again and again
LARGEST_TENSOR = 1 << 26
BYTES = {"F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1}

Stored = tuple[str, str, Shape]  # name, dtype as safetensors spells it, shape


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    """config.json alone."""
    folder.mkdir(parents=True)
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def write_header(folder: Path, config: dict[str, Any]) -> Path:
    """All tensors of a Llama in one safetensors file, beside its config.json; the data is a hole."""
    write_config(folder, config)
    return _write_sparse(folder / "model.safetensors", _in_bfloat16(llama_tensors(config)))


def write_nf4(folder: Path, config: dict[str, Any]) -> Path:
    """The same as bitsandbytes stores it: 4-bit codes two in a byte, scales quantized again."""
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    write_config(folder, config | {"quantization_config": quantization})
    stored: list[Stored] = []
    for name, shape in llama_tensors(config):
        if "_proj" not in name:
            stored.append((name, "BF16", shape))
            continue
        count = _product(shape)
        stored += [
            (name, "U8", (count // 2, 1)),
            (f"{name}.absmax", "U8", (count // 64,)),
            (f"{name}.nested_absmax", "F32", (count // 64 // 256,)),
            (f"{name}.nested_quant_map", "F32", (256,)),
            (f"{name}.quant_map", "F32", (16,)),
            (f"{name}.quant_state.bitsandbytes__nf4", "U8", (80,)),
        ]
    return _write_sparse(folder / "model.safetensors", stored)


def write_gptq(folder: Path, config: dict[str, Any]) -> Path:
    """The same as GPTQ stores it: eight 4-bit codes in an int32, groups of 128."""
    quantization = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    write_config(folder, config | {"quantization_config": quantization})
    stored: list[Stored] = []
    for name, shape in llama_tensors(config):
        if "_proj" not in name:
            stored.append((name, "F16", shape))
            continue
        (outputs, inputs), stem = shape, name.removesuffix(".weight")
        stored += [
            (f"{stem}.qweight", "I32", (inputs // 8, outputs)),
            (f"{stem}.qzeros", "I32", (inputs // 128, outputs // 8)),
            (f"{stem}.scales", "F16", (inputs // 128, outputs)),
            (f"{stem}.g_idx", "I32", (inputs,)),
        ]
    return _write_sparse(folder / "model.safetensors", stored)


def write_shards(folder: Path, config: dict[str, Any], count: int) -> Path:
    """The same in ``count`` files with an index."""
    write_config(folder, config)
    tensors = list(llama_tensors(config))
    names: dict[str, str] = {}
    for shard in range(count):
        name = f"model-{shard + 1:05d}-of-{count:05d}.safetensors"
        mine = tensors[shard * len(tensors) // count : (shard + 1) * len(tensors) // count]
        _write_sparse(folder / name, _in_bfloat16(mine))
        names |= {tensor: name for tensor, _ in mine}
    total = sum(2 * _product(shape) for _, shape in tensors)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": names}))
    return index


def write_values(folder: Path, size: int) -> Path:
    """About ``size`` bytes of finite bfloat16 values, two thirds of them between 0.01 and 100."""
    folder.mkdir(parents=True)
    width = 4096
    rows = min(LARGEST_TENSOR, size) // (2 * width)
    tensors = [(f"layers.{i}.weight", (rows, width)) for i in range(size // (2 * rows * width))]
    block = bytearray(random.Random(0).randbytes(BLOCK))
    # The high byte holds the sign and seven bits of the exponent: bring it near that of 1.0.
    block[1::2] = bytes(block[1::2]).translate(
        bytes((b & 0x80) | (0x3C + (b & 7)) for b in range(256))
    )
    path = folder / "model.safetensors"
    missing = sum(2 * _product(shape) for _, shape in tensors)
    with path.open("wb") as stream:
        stream.write(_header(_in_bfloat16(tensors))[0])
        while missing:
            missing -= stream.write(block[: min(missing, BLOCK)])
    return path


def write_gguf(folder: Path, config: dict[str, Any], vocabulary: int) -> Path:
    """A GGUF file as llama.cpp writes it: tokens, scores, types and merges, then Q4_K tensors."""
    folder.mkdir(parents=True)
    layers, width = config["num_hidden_layers"], config["hidden_size"]
    keys = width // config["num_attention_heads"] * config["num_key_value_heads"]
    inner, rows = config["intermediate_size"], vocabulary
    fields = [
        _text("general.architecture") + struct.pack("<I", 8) + _text("llama"),
        *(
            _text(f"llama.{name}") + struct.pack("<II", 4, value)
            for name, value in (
                ("block_count", layers),
                ("embedding_length", width),
                ("feed_forward_length", inner),
                ("context_length", config["max_position_embeddings"]),
                ("attention.head_count", config["num_attention_heads"]),
                ("attention.head_count_kv", config["num_key_value_heads"]),
                ("vocab_size", vocabulary),
            )
        ),
        _array("tokens", 8, (_text(f"token{i}") for i in range(vocabulary)), vocabulary),
        _array("scores", 6, (struct.pack("<f", -i) for i in range(vocabulary)), vocabulary),
        _array("token_type", 5, (struct.pack("<i", 1) for _ in range(vocabulary)), vocabulary),
        _array("merges", 8, (_text(f"to ken{i}") for i in range(vocabulary)), vocabulary),
    ]
    block = {
        "attn_norm": (width,),
        "attn_q": (width, width),
        "attn_k": (width, keys),
        "attn_v": (width, keys),
        "attn_output": (width, width),
        "ffn_norm": (width,),
        "ffn_gate": (width, inner),
        "ffn_up": (width, inner),
        "ffn_down": (inner, width),
    }
    tensors: list[tuple[str, Shape]] = [("token_embd.weight", (width, rows))]
    for layer in range(layers):
        tensors += [(f"blk.{layer}.{name}.weight", shape) for name, shape in block.items()]
    tensors += [("output_norm.weight", (width,)), ("output.weight", (width, rows))]
    described, offset = [], 0
    for name, shape in tensors:
        count = _product(shape)
        # Q4_K is type 12: 144 bytes for 256 values; vectors stay F32, type 0.
        kind, size = (12, count // 256 * 144) if len(shape) == 2 else (0, 4 * count)
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        described.append(_text(name) + dimensions + struct.pack("<IQ", kind, offset))
        offset += -(-size // 32) * 32
    path = folder / "model.gguf"
    with path.open("wb") as stream:
        stream.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields)))
        stream.writelines(fields)
        stream.writelines(described)
        stream.truncate(-(-stream.tell() // 32) * 32 + offset)
    return path


def llama_tensors(config: dict[str, Any]) -> Iterator[tuple[str, Shape]]:
    """Names and shapes of a Llama's files."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    keys = width // config["num_attention_heads"] * config["num_key_value_heads"]
    block: dict[str, Shape] = {
        "input_layernorm": (width,),
        "mlp.down_proj": (width, inner),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "post_attention_layernorm": (width,),
        "self_attn.k_proj": (keys, width),
        "self_attn.o_proj": (width, width),
        "self_attn.q_proj": (width, width),
        "self_attn.v_proj": (keys, width),
    }
    yield "model.embed_tokens.weight", (config["vocab_size"], width)
    for layer in range(config["num_hidden_layers"]):
        for name, shape in block.items():
            yield f"model.layers.{layer}.{name}.weight", shape
    yield "model.norm.weight", (width,)
    yield "lm_head.weight", (config["vocab_size"], width)


def _in_bfloat16(tensors: Iterable[tuple[str, Shape]]) -> Iterator[Stored]:
    return ((name, "BF16", shape) for name, shape in tensors)


def _write_sparse(path: Path, tensors: Iterable[Stored]) -> Path:
    header, size = _header(tensors)
    with path.open("wb") as stream:
        stream.write(header)
        stream.truncate(len(header) + size)
    return path


def _header(tensors: Iterable[Stored]) -> tuple[bytes, int]:
    """The header, and the bytes of data that it promises."""
    entries, position = {}, 0
    for name, dtype, shape in tensors:
        end = position + BYTES[dtype] * _product(shape)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, position


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _array(name: str, kind: int, items: Iterable[bytes], count: int) -> bytes:
    head = _text(f"tokenizer.ggml.{name}") + struct.pack("<IIQ", 9, kind, count)
    return head + b"".join(items)


def _product(shape: Shape) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
