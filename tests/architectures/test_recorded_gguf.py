"""One converted model a type, as record_gguf.py wrote it down, against the declarations: without gguf."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

import minilm
from minilm.architectures.gguf_layout import gguf_layout
from minilm.formats.gguf import read_header
from minilm.ledger.layout import AttentionSpec
from tests.architectures.gguf_conversions import Tensors, elements, is_buffer
from tests.architectures.gguf_types import CONVERSIONS
from tests.architectures.record_gguf import PATH, record, recorded_tensors
from tests.formats.files import ARRAY, STRING, UINT32, gguf, scalar, text

RECORD = json.loads(PATH.read_text(encoding="utf-8"))
INT32, BOOL = 5, 7


def stored(key: str, value: Any) -> bytes:
    if isinstance(value, str):
        return scalar(key, STRING, text(value))
    if isinstance(value, list):
        head = struct.pack("<IQ", INT32, len(value))
        return scalar(key, ARRAY, head + struct.pack(f"<{len(value)}i", *value))
    if isinstance(value, bool):
        return scalar(key, BOOL, struct.pack("<?", value))
    return scalar(key, UINT32, struct.pack("<I", value))


def write(path: Path, keys: dict[str, Any], tensors: Tensors) -> Path:
    entries, end = [], 0
    for name, shape in tensors.items():
        entries.append((name, shape[::-1], 0, end))
        end += -(-4 * elements({name: shape}) // 32) * 32
    path.write_bytes(gguf(entries, [stored(*each) for each in keys.items()], bytes(end)))
    return path


def test_every_conversion_is_recorded() -> None:
    assert RECORD.keys() == CONVERSIONS.keys(), "run: python -m tests.architectures.record_gguf"


@pytest.mark.parametrize("name", RECORD)
def test_a_recorded_model_is_proven_by_its_metadata(name: str, tmp_path: Path) -> None:
    keys, tensors = RECORD[name]["keys"], recorded_tensors(RECORD[name])
    report = minilm.inspect(write(tmp_path / "x.gguf", keys, tensors))
    assert report.mismatches == ()
    assert report.witnesses.formula == report.parameters.total
    assert report.parameters.total + report.parameters.buffers == elements(tensors)
    *_, last = (each for each in tensors if "blk.1." in each and not is_buffer(each))
    without = {each: shape for each, shape in tensors.items() if each != last}
    report = minilm.inspect(write(tmp_path / "y.gguf", keys, without))
    assert f"file: {last} {list(tensors[last])} is missing" in report.mismatches


def report_of(path: Path, name: str, keys: dict[str, Any], tensors: Tensors) -> minilm.Report:
    """A recorded model with other keys, None for none, and tensors."""
    changed = {k: v for k, v in (RECORD[name]["keys"] | keys).items() if v is not None}
    return minilm.inspect(write(path / "x.gguf", changed, recorded_tensors(RECORD[name]) | tensors))


def attention(path: Path) -> tuple[AttentionSpec, ...]:
    layout = gguf_layout(read_header(path))
    assert layout is not None
    return layout.attention


@pytest.mark.parametrize(
    ("name", "lists"),
    [("glm4_moe", ()), ("olmo3", ("attention.sliding_window_pattern",)), ("deepseek_v3", ())],
)
def test_next_token_layers_are_no_layers(name: str, lists: tuple[str, ...], tmp_path: Path) -> None:
    """llama.cpp counts them among the blocks; lists have a number for them as well."""
    keys, tensors = RECORD[name]["keys"], recorded_tensors(RECORD[name])
    prefix = keys["general.architecture"]
    number = keys[f"{prefix}.block_count"]
    last = {k: v for k, v in tensors.items() if k.startswith(f"blk.{number - 1}.")}
    more = {k.replace(f"blk.{number - 1}.", f"blk.{number}."): v for k, v in last.items()}
    whole = minilm.inspect(write(tmp_path / "whole.gguf", keys, tensors))
    changed = {f"{prefix}.block_count": number + 1, f"{prefix}.nextn_predict_layers": 1}
    changed |= {f"{prefix}.{key}": [*keys[f"{prefix}.{key}"], 0] for key in lists}
    report = report_of(tmp_path, name, changed, more)
    assert report.mismatches == ()
    assert report.parameters.total == whole.parameters.total
    assert attention(tmp_path / "x.gguf") == attention(tmp_path / "whole.gguf")


def test_not_all_layers_are_next_token_layers(tmp_path: Path) -> None:
    name, number = "glm4moe.nextn_predict_layers", 10**9
    report = report_of(tmp_path, "glm4_moe", {name: number}, {})
    assert any(f"{name}: {number}, expected fewer than" in note for note in report.notes)
    whole = elements(recorded_tensors(RECORD["glm4_moe"]))
    assert report.parameters.total + report.parameters.buffers == whole


@pytest.mark.parametrize(
    ("name", "keys", "tensors"),
    [
        ("bert", {}, {"cls.weight": (4, 4)}),
        ("mpt", {}, {"blk.0.attn_qkv.bias": (12,)}),
        ("phi", {}, {"blk.0.attn_qkv.weight": (12, 4)}),
        ("qwen2_moe", {"qwen2moe.expert_shared_feed_forward_length": None}, {}),
        ("lfm2", {"lfm2.attention.head_count_kv": [1, 2, 0]}, {}),
        ("lfm2", {"lfm2.attention.head_count_kv": None}, {}),
        ("jamba", {"jamba.attention.head_count_kv": [1, 1, 0, 1]}, {}),
        ("mamba2", {"mamba2.ssm.inner_size": 13}, {}),
        ("deepseek_v2", {"deepseek2.attention.key_length_mla": 1}, {}),
        ("gemma3n_text", {"gemma3n.altup.num_inputs": None}, {}),
        ("smallthinker", {}, {"blk.0.ffn_gate.weight": (4, 4)}),
    ],
)
def test_what_its_metadata_do_not_give_is_counted_by_name(
    name: str, keys: dict[str, Any], tensors: Tensors, tmp_path: Path
) -> None:
    report = report_of(tmp_path, name, keys, tensors)
    assert report.formula is None
    assert any(
        note.startswith(("no formula for what its metadata says", "no formula without"))
        for note in report.notes
    )
    assert report.mismatches == ()
    whole = recorded_tensors(RECORD[name]) | tensors
    assert report.parameters.total + report.parameters.buffers == elements(whole)


@pytest.mark.parametrize("keys", [("block_count",), ("embedding_length", "block_count")])
def test_keys_that_are_missing_are_named(keys: tuple[str, ...], tmp_path: Path) -> None:
    missing = [f"qwen3.{key}" for key in keys]
    report = report_of(tmp_path, "qwen3", dict.fromkeys(missing), {})
    assert any(f"a whole number as {', '.join(missing)}:" in note for note in report.notes)


@pytest.mark.parametrize("name", ["Dream", "LLaDA", "LLaDA-MoE", "RND1"])
def test_what_sees_all_of_a_text_keeps_no_cache(name: str, tmp_path: Path) -> None:
    (key,) = (key for key in RECORD[name]["keys"] if key.endswith("attention.causal"))
    caches = []
    for causal in (False, True):
        report_of(tmp_path, name, {key: causal}, {})
        caches.append([each.cache != 0 for each in attention(tmp_path / "x.gguf")])
    assert caches == [[False], [True]]


def test_layers_that_slide_are_those_of_the_list(tmp_path: Path) -> None:
    key = "olmo2.attention.sliding_window_pattern"
    number = RECORD["olmo3"]["keys"]["olmo2.block_count"]
    windows = []
    for slides in ([0] * number, [1] * number, [1] + [0] * (number - 1)):
        report_of(tmp_path, "olmo3", {key: slides}, {})
        windows.append([each.window for each in attention(tmp_path / "x.gguf")])
    assert windows == [[0], [4], [4, 0]]


def test_all_but_each_fourth_layer_of_smallthinker_slide_if_its_file_has_a_window(
    tmp_path: Path,
) -> None:
    windows = []
    for window in (None, 4):
        report_of(tmp_path, "smallthinker", {"smallthinker.attention.sliding_window": window}, {})
        kinds = attention(tmp_path / "x.gguf")
        windows.append({each.window: each.layers.value({"L": 3}) for each in kinds})
    assert RECORD["smallthinker"]["keys"]["smallthinker.block_count"] == 3
    assert windows == [{0: 3}, {4: 2, 0: 1}]


@pytest.mark.parametrize(
    ("name", "stem", "outer"),
    [
        ("qwen2_moe", "ffn_gate_inp_shexp", 1),
        ("kimi_linear", "ssm_conv1d_", 1),
        ("kimi_linear", "ssm_a", 2),
    ],
)
def test_outer_dimensions_of_one_may_be_left_out(
    name: str, stem: str, outer: int, tmp_path: Path
) -> None:
    """ggml writes none: a quantized file has the vector that the converter's has as one row."""
    tensors = recorded_tensors(RECORD[name])
    rows = {each: shape for each, shape in tensors.items() if stem in each}
    assert {shape[:outer] for shape in rows.values()} == {(1,) * outer}
    fewer: Tensors = {each: shape[outer:] for each, shape in rows.items()}
    report = report_of(tmp_path, name, {}, fewer)
    assert report.mismatches == ()
    assert report.witnesses.formula == report.parameters.total
    wrong: Tensors = {each: (*shape[:-1], shape[-1] + 1) for each, shape in fewer.items()}
    assert len(report_of(tmp_path, name, {}, wrong).mismatches) == len(rows) + 1


def test_layers_that_all_differ_are_told_by_lists(tmp_path: Path) -> None:
    """A layer without its number is one that no formula knows, and another number a mismatch."""
    key = "openelm.feed_forward_length"
    widths = RECORD["openelm"]["keys"][key]
    assert report_of(tmp_path, "openelm", {key: widths[1:]}, {}).formula is None
    assert report_of(tmp_path, "openelm", {key: [widths[0] + 1, *widths[1:]]}, {}).mismatches
    heads = RECORD["nemotron-nas"]["keys"]["deci.attention.head_count"]
    other = [number + (i == 1) for i, number in enumerate(heads)]
    report = report_of(tmp_path, "nemotron-nas", {"deci.attention.head_count": other}, {})
    assert report.formula is None


def test_halves_of_a_declared_tensor_are_not_counted_beside_it(tmp_path: Path) -> None:
    """Some files hold DeepSeek's attn_kv_b whole, and its rows apart as well."""
    earlier = RECORD["deepseek_v2 of 2024"]
    keys, tensors = earlier["keys"], recorded_tensors(earlier)
    whole = minilm.inspect(write(tmp_path / "x.gguf", keys, tensors))
    widths = {
        key: keys[f"deepseek2.{key}"] for key in ("rope.dimension_count", "attention.head_count")
    }
    rotary, heads = widths.values()
    plain = keys["deepseek2.attention.key_length"] - rotary
    values = keys["deepseek2.attention.value_length"]
    latent = keys["deepseek2.attention.kv_lora_rank"]
    halves = {
        name.replace("attn_kv_b", stem): shape
        for name in tensors
        if "attn_kv_b" in name
        for stem, shape in (
            ("attn_k_b", (heads, latent, plain)),
            ("attn_v_b", (heads, values, latent)),
        )
    }
    both = minilm.inspect(write(tmp_path / "y.gguf", keys, tensors | halves))
    assert both.mismatches == ()
    assert both.parameters.total == whole.parameters.total
    assert both.parameters.stored_elements == elements(tensors | halves)
    assert any(f"{len(halves)} tensors are halves of others" in note for note in both.notes)
    apart = {name: shape for name, shape in tensors.items() if "attn_kv_b" not in name}
    split = minilm.inspect(write(tmp_path / "z.gguf", keys, apart | halves))
    assert split.mismatches == ()
    assert split.parameters.total == whole.parameters.total


@pytest.mark.parametrize("name", RECORD)
def test_the_record_is_what_gguf_makes(name: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    made = json.loads(json.dumps(record(name, tmp_path / "x.gguf")))
    assert made == RECORD[name], "run: python -m tests.architectures.record_gguf"
