"""GGUF files are proven by their own metadata; names and shapes as llama.cpp's converter writes them."""

import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import minilm
from minilm.cli.inspect import main
from tests.formats.files import STRING, UINT32, gguf, scalar, strings, text

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


def write(
    path: Path,
    architecture: str,
    sizes: dict[str, int],
    shapes: Shapes,
    values: Mapping[str, bytes] = MappingProxyType({}),
) -> int:
    """A file of float32 ``values``, by default zeros; returns its elements."""
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
        data += values.get(name, bytes(4 * count))
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


def filled(path: Path, architecture: str, shapes: Shapes, copies: dict[str, str]) -> None:
    """A file whose tensors hold random values, but for the copies of others."""
    rng, values = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        values[name] = rng.standard_normal(shape, dtype=np.float32).tobytes()
    write(path, architecture, {}, shapes, values | {k: values[v] for k, v in copies.items()})


GPT2_SHAPES: Shapes = (
    OUTSIDE
    | HEAD
    | {"position_embd.weight": (64, 16), "output_norm.bias": (16,)}
    | blocks(GPT2)
    | blocks(GPT2_BIASES, "bias")
)


@pytest.mark.parametrize(
    ("architecture", "shapes"), [("gpt2", GPT2_SHAPES), ("novel", OUTSIDE | HEAD)]
)
def test_a_copy_of_the_token_table_is_a_tied_head(
    architecture: str, shapes: Shapes, tmp_path: Path
) -> None:
    path = tmp_path / "x.gguf"
    filled(path, architecture, shapes, {})
    untied = minilm.inspect(path)
    filled(path, architecture, shapes, {"output.weight": "token_embd.weight"})
    report = minilm.inspect(path)
    assert (untied.tied, report.tied) == ((), (("output.weight", "token_embd.weight"),))
    assert untied.parameters.total - report.parameters.total == 160
    assert report.parameters.stored_elements == untied.parameters.total
    assert report.mismatches == ()
    note = "output.weight is a copy of token_embd.weight: tied, and counted once"
    assert (note in report.notes, note in untied.notes) == (True, False)


@pytest.mark.parametrize(
    ("biases", "verified"),
    [
        (("attn_q", "attn_k", "attn_v"), True),
        (("attn_output",), True),
        (("attn_k", "ffn_down"), True),
        (("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"), True),
        (("ffn_norm",), False),
    ],
)
def test_biases_of_a_llama_are_optional(
    biases: tuple[str, ...], verified: bool, tmp_path: Path
) -> None:
    shapes = OUTSIDE | HEAD | blocks(ATTENTION | FEED_FORWARD)
    sizes = {name: (ATTENTION | FEED_FORWARD)[name][:1] for name in biases}
    elements = write(tmp_path / "x.gguf", "llama", {}, shapes | blocks(sizes, "bias"))
    report = minilm.inspect(tmp_path / "x.gguf")
    assert report.verified == verified
    if verified:
        assert report.witnesses.formula == elements
        assert report.parameters.biases == 2 * sum(size for (size,) in sizes.values())


def test_a_bias_of_one_layer_alone_is_a_mismatch(tmp_path: Path) -> None:
    shapes = OUTSIDE | HEAD | blocks(ATTENTION | FEED_FORWARD) | {"blk.0.attn_q.bias": (16,)}
    write(tmp_path / "x.gguf", "llama", {}, shapes)
    assert (
        "file: blk.1.attn_q.bias [16] is missing" in minilm.inspect(tmp_path / "x.gguf").mismatches
    )


def test_halves_of_a_tensor_are_not_counted_beside_it(tmp_path: Path) -> None:
    """DeepSeek's attn_kv_b, (h (n + v), c), and its rows apart: (h, c, n) and (h, v, c)."""
    halves: Shapes = {"attn_k_b": (4, 3, 5), "attn_v_b": (4, 6, 3)}
    whole: Shapes = {"attn_kv_b": (44, 3)}
    path = tmp_path / "x.gguf"
    totals = []
    for shapes in (whole, halves, whole | halves):
        write(path, "deepseek2", {}, OUTSIDE | blocks(shapes))
        totals.append(minilm.inspect(path).parameters.total)
    assert totals == [176 + 2 * 132] * 3
    report = minilm.inspect(path)
    assert report.parameters.stored_elements == 176 + 4 * 132
    assert any("4 tensors are halves of others" in note for note in report.notes)


@pytest.mark.parametrize("architecture", ["llama", "glm4moe"])
def test_next_token_layers_are_apart(architecture: str, tmp_path: Path) -> None:
    """llama.cpp counts them among the blocks."""
    layers = blocks(ATTENTION | FEED_FORWARD)
    extra = {
        name.replace("blk.1", "blk.2"): shape
        for name, shape in layers.items()
        if name.startswith("blk.1")
    } | {"blk.2.nextn.eh_proj.weight": (16, 32)}
    path = tmp_path / "x.gguf"
    elements = write(path, architecture, {}, OUTSIDE | layers)
    sizes = {"block_count": 3, "nextn_predict_layers": 1}
    stored = write(path, architecture, sizes, OUTSIDE | layers | extra)
    report = minilm.inspect(path)
    assert report.mismatches == ()
    assert (report.parameters.total, report.parameters.stored_elements) == (elements, stored)
    assert {c.name: c.count for c in report.conventions}["with MTP"] == stored


def special(path: Path, architecture: str, tensors: Shapes, **keys: str | float | bool) -> None:
    fields = [scalar("general.architecture", STRING, text(architecture))]
    for key, value in keys.items():
        name = key.replace("__", ".")
        if isinstance(value, str):
            fields.append(scalar(name, STRING, text(value)))
        elif isinstance(value, bool):
            fields.append(scalar(name, 7, bytes([value])))
        else:
            fields.append(scalar(name, 6, struct.pack("<f", value)))
    entries, data = [], b""
    for name, shape in tensors.items():
        entries.append((name, shape[::-1], 0, len(data)))
        data += bytes(4 * int(np.prod(shape)))
        data += bytes(-len(data) % 32)
    path.write_bytes(gguf(entries, fields, data))


def test_what_is_no_model_is_called_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    lora: Shapes = {"blk.0.attn_q.weight.lora_a": (4, 64), "blk.0.attn_q.weight.lora_b": (64, 4)}
    special(
        path, "llama", lora, general__type="adapter", adapter__type="lora", adapter__lora__alpha=8.0
    )
    report = minilm.inspect(path)
    assert (report.parameters.total, report.parameters.buffers) == (512, 0)
    assert report.notes[0] == (
        "LoRA adapter for llama, whose weights are not in the file: rank 4, alpha 8.0, on 1 tensor"
    )
    statistics: Shapes = {"blk.0.attn_q.weight.in_sum2": (64,), "blk.0.attn_q.weight.counts": (1,)}
    special(path, "imatrix", statistics, general__type="imatrix")
    report = minilm.inspect(path)
    assert (report.parameters.total, report.parameters.stored_elements) == (0, 65)
    assert "an importance matrix (imatrix)" in report.notes[0]
    assert main([str(path)]) == 0
    projector: Shapes = {"v.blk.0.attn_q.weight": (8, 8), "mm.0.weight": (4, 8)}
    special(path, "clip", projector, general__type="mmproj", clip__has_vision_encoder=True)
    report = minilm.inspect(path)
    assert report.parameters.total == 96
    assert "a multimodal projector (mmproj): the vision encoder" in report.notes[0]
    special(path, "controlvector", {"direction.1": (8,)})
    assert "a control vector" in minilm.inspect(path).notes[0]


@pytest.mark.parametrize(
    ("architecture", "tensors", "keys", "note"),
    [
        (
            "llama",
            {f"blk.{i}.attn_q.weight.lora_a": (rank, 8) for i, rank in enumerate((4, 2))},
            {"general__type": "adapter", "adapter__type": "lora"},
            "LoRA adapter for llama, whose weights are not in the file: rank 2 to 4, on 2 tensors",
        ),
        (
            "llama",
            {"blk.0.attn_q.weight": (4, 8)},
            {"general__type": "adapter", "adapter__type": "ia3"},
            "adapter of type 'ia3' for llama, whose weights are not in the file",
        ),
        (
            "clip",
            {"v.blk.0.attn_q.weight": (8, 8)},
            {"clip__has_vision_encoder": True, "clip__has_audio_encoder": True},
            "a multimodal projector (mmproj): the vision and audio encoder and the projection",
        ),
        (
            "clip",
            {"v.blk.0.attn_q.weight": (8, 8)},
            {"clip__has_vision_encoder": False},
            "a multimodal projector (mmproj): the encoder and the projection",
        ),
    ],
)
def test_adapters_and_projectors_are_described_by_what_they_say_of_themselves(
    tmp_path: Path, architecture: str, tensors: Shapes, keys: dict[str, Any], note: str
) -> None:
    special(tmp_path / "x.gguf", architecture, tensors, **keys)
    assert minilm.inspect(tmp_path / "x.gguf").notes[0].startswith(note)
