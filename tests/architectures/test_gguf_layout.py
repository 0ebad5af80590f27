"""GGUF files are proven by their own metadata; names and shapes as llama.cpp's converter writes them."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest

import minilm
from tests.formats.files import UINT32, gguf, scalar, strings, text

Shapes = dict[str, tuple[int, ...]]

SIZES = {
    "block_count": 2,
    "context_length": 64,
    "embedding_length": 16,
    "feed_forward_length": 24,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
}
ATTENTION: Shapes = {
    "attn_norm": (16,),
    "attn_q": (16, 16),
    "attn_k": (8, 16),
    "attn_v": (8, 16),
    "attn_output": (16, 16),
    "ffn_norm": (16,),
}
FEED_FORWARD: Shapes = {"ffn_gate": (24, 16), "ffn_up": (24, 16), "ffn_down": (16, 24)}


def blocks(shapes: Shapes, suffix: str = "weight") -> Shapes:
    return {f"blk.{i}.{name}.{suffix}": shape for i in range(2) for name, shape in shapes.items()}


OUTSIDE: Shapes = {"token_embd.weight": (10, 16), "output_norm.weight": (16,)}
HEAD: Shapes = {"output.weight": (10, 16)}
GPT2: Shapes = {
    "attn_norm": (16,),
    "attn_qkv": (48, 16),
    "attn_output": (16, 16),
    "ffn_norm": (16,),
    "ffn_up": (24, 16),
    "ffn_down": (16, 24),
}
GPT2_BIASES: Shapes = {name: shape[:1] for name, shape in GPT2.items()}
EXPERTS: Shapes = {
    "ffn_gate_inp": (3, 16),
    "ffn_gate_exps": (3, 8, 16),
    "ffn_up_exps": (3, 8, 16),
    "ffn_down_exps": (3, 16, 8),
}
QK_NORM: Shapes = {"attn_q_norm": (4,), "attn_k_norm": (4,)}
POST_NORMS: Shapes = {"post_attention_norm": (16,), "post_ffw_norm": (16,)}

MODELS: dict[str, tuple[str, dict[str, int], Shapes]] = {
    "llama": ("llama", {}, OUTSIDE | HEAD | blocks(ATTENTION | FEED_FORWARD)),
    "llama, tied, its frequencies stored": (
        "llama",
        {},
        OUTSIDE | blocks(ATTENTION | FEED_FORWARD) | {"rope_freqs.weight": (2,)},
    ),
    "qwen2": (
        "qwen2",
        {},
        OUTSIDE
        | blocks(ATTENTION | FEED_FORWARD)
        | blocks({"attn_q": (16,), "attn_k": (8,), "attn_v": (8,)}, "bias"),
    ),
    "qwen3": (
        "qwen3",
        {"attention.key_length": 4},
        OUTSIDE | blocks(ATTENTION | QK_NORM | FEED_FORWARD),
    ),
    "qwen3moe": (
        "qwen3moe",
        {
            "attention.key_length": 4,
            "expert_count": 3,
            "expert_used_count": 2,
            "expert_feed_forward_length": 8,
        },
        OUTSIDE | HEAD | blocks(ATTENTION | QK_NORM | EXPERTS),
    ),
    "gemma2": (
        "gemma2",
        {"attention.key_length": 4},
        OUTSIDE | blocks(ATTENTION | POST_NORMS | FEED_FORWARD),
    ),
    "gpt2": (
        "gpt2",
        {},
        OUTSIDE
        | {"position_embd.weight": (64, 16), "output_norm.bias": (16,)}
        | blocks(GPT2)
        | blocks(GPT2_BIASES, "bias"),
    ),
}


def write(path: Path, architecture: str, sizes: dict[str, int], shapes: Shapes) -> int:
    """A file of float32 zeros; returns its elements."""
    keys = [scalar("general.architecture", 8, text(architecture))]
    keys += [
        scalar(f"{architecture}.{key}", UINT32, struct.pack("<I", size))
        for key, size in (SIZES | sizes).items()
    ]
    keys.append(strings("tokenizer.ggml.tokens", [f"t{i}" for i in range(10)]))
    entries, elements, data = [], 0, b""
    for name, shape in shapes.items():
        entries.append((name, shape[::-1], 0, len(data)))
        count = 1
        for size in shape:
            count *= size
        elements += count
        data += bytes(4 * count)
        data += bytes(-len(data) % 32)
    path.write_bytes(gguf(entries, keys, data))
    return elements


@pytest.mark.parametrize("name", MODELS)
def test_a_gguf_file_is_proven_by_its_own_metadata(name: str, tmp_path: Path) -> None:
    architecture, sizes, shapes = MODELS[name]
    elements = write(tmp_path / "x.gguf", architecture, sizes, shapes)
    report = minilm.inspect(tmp_path / "x.gguf")
    assert report.mismatches == ()
    buffers = 2 if "rope_freqs.weight" in shapes else 0
    assert report.witnesses.formula == report.witnesses.file == elements - buffers
    assert report.parameters.buffers == buffers
    assert report.architecture == architecture
    assert bool(report.tied) == ("output.weight" not in shapes)
    if "expert_count" in sizes:  # two of three experts
        experts = 2 * 3 * 3 * 8 * 16
        assert report.parameters.active == elements - experts // 3


def test_a_gguf_file_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    architecture, sizes, shapes = MODELS["llama"]
    write(tmp_path / "x.gguf", architecture, sizes, shapes)
    (tmp_path / "x").write_bytes((tmp_path / "x.gguf").read_bytes())
    named, unnamed = (minilm.inspect(tmp_path / name) for name in ("x.gguf", "x"))
    assert unnamed.verified
    assert unnamed.formula is not None
    assert unnamed == replace(named, target=str(tmp_path / "x"))


def test_a_tensor_that_is_missing_from_a_gguf_file_is_named(tmp_path: Path) -> None:
    architecture, sizes, shapes = MODELS["llama"]
    shapes = {k: v for k, v in shapes.items() if k != "blk.1.ffn_up.weight"}
    write(tmp_path / "x.gguf", architecture, sizes, shapes)
    report = minilm.inspect(tmp_path / "x.gguf")
    assert "file: blk.1.ffn_up.weight [24, 16] is missing" in report.mismatches


def test_an_unknown_architecture_is_counted_under_gguf_names(tmp_path: Path) -> None:
    elements = write(tmp_path / "x.gguf", "novel", {}, OUTSIDE | blocks(ATTENTION))
    report = minilm.inspect(tmp_path / "x.gguf")
    assert report.formula is None
    assert report.parameters.total == elements
    assert report.parameters.embedding == 160
    counts = {component.name: component.count for component in report.components}
    assert counts["attention query"] == 2 * 256
    assert counts["token embedding"] == 160
