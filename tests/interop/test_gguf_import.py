"""GGUF files as runs: the inverse of the export, values as gguf's own reader has them, hostile files."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

import minilm
from minilm import inspect
from minilm.checkpoint import load
from minilm.config import ModelConfig
from minilm.dtypes import GGUF_BLOCKS
from minilm.errors import ConfigError, InputError
from minilm.formats import tensor_io
from minilm.formats.header import StoredTensor
from minilm.interop.gguf import find_supported
from minilm.interop.model_source import read_dequantized
from minilm.interop.rope_factors import rope_factors, rope_scaling
from minilm.runs.files import read_config
from minilm.text.tokenizer_file import load_tokenizer
from minilm.text.tokenizer_training import build_tokenizer
from minilm.text.tokenizers import ByteTokenizer, LibraryTokenizer, Tokenizer
from minilm.values.read import CHUNK_ELEMENTS, why_unread
from tests.conftest import make_text
from tests.interop.llama_cpp import LlamaCpp, quantize
from tests.interop.published_tokenizers import (
    BEGIN,
    CHAT_TEMPLATE,
    END,
    KINDS,
    TOOL,
    TURN,
    save_tokenizer,
)
from tests.interop.shapes import GATED, NO_BIASES, SHAPES, TINY, make_run, random_fields

pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")

import gguf

from tests.interop.test_gguf import RUNS

GROUPED = GATED | NO_BIASES | {"d_model": 64, "num_heads": 8, "num_kv_heads": 2}


def exported(source: Path, folder: Path, file_format: str = "f32") -> Path:
    """The GGUF file of a run, of the same name in any folder: the name is in the file."""
    folder.mkdir()
    path = folder / "model.gguf"
    minilm.convert(source, "gguf", path, gguf_format=file_format)
    return path


def content_of(path: Path) -> dict[str, Any]:
    """Everything in a GGUF file, by gguf's own reader; the order of the keys means nothing."""
    reader = gguf.GGUFReader(path)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    return metadata | {t.name: (t.tensor_type, t.data.tobytes()) for t in reader.tensors}


def logits_of(run: Path) -> torch.Tensor:
    """(32, V), of random tokens."""
    tokens = torch.randint(1, 256, (1, 32), generator=torch.Generator().manual_seed(0))
    return load(run).model(tokens)[0]


def check_round_trip(folder: Path, source: Path) -> None:
    """Weights bit for bit, the configuration, logits; and the same file when exported again."""
    path, back = exported(source, folder / "first"), folder / "back"
    assert minilm.convert(path, "minilm", back) == "minilm run"
    config = read_config(source / "config.json")
    graph = find_supported(config)
    # Biases of zeros, which llama.cpp asks for, are there; a copied head is the table again.
    stored = graph.stored_config(config)
    tied = {"tied_embeddings": config.tied_embeddings}
    assert read_config(back / "config.json") == replace(stored, **graph.gguf.stored_fields | tied)
    weights, imported = (load_file(run / "model.safetensors") for run in (source, back))
    assert weights.keys() <= imported.keys()
    for name, values in imported.items():
        np.testing.assert_array_equal(values, weights.get(name, np.zeros_like(values)), name)
    assert torch.equal(logits_of(source), logits_of(back))
    assert inspect(str(back)).verified
    again = exported(back, folder / "second")
    if find_supported(config) == find_supported(read_config(back / "config.json")):
        added = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.padding_token_id"}
        first, second = content_of(path), content_of(again)
        # Bytes that were split as Qwen2's are ours again, with an end for a beginning.
        assert {name for name in second if first.get(name) != second[name]} - added in (
            set(),
            {"GGUF.kv_count"},
        )
        assert first.keys() <= second.keys()
    else:  # with biases, Starcoder2's is GPT-NeoX's too
        minilm.convert(again, "minilm", folder / "third")
        assert torch.equal(logits_of(source), logits_of(folder / "third"))


@pytest.mark.parametrize("name", RUNS)
def test_every_shape_comes_back(tmp_path: Path, name: str) -> None:
    check_round_trip(tmp_path, make_run(tmp_path / "run", SHAPES[name][1]))


def test_eight_heads_and_two_of_keys_come_back(tmp_path: Path) -> None:
    check_round_trip(tmp_path, make_run(tmp_path / "run", GROUPED))


def test_random_shapes_come_back(tmp_path: Path) -> None:
    choose, count = random.Random(1), 0
    while count < 40:
        fields = random_fields(choose) | {"context_length": 32}
        try:
            find_supported(ModelConfig(**fields))
        except ConfigError:
            continue
        folder = tmp_path / str(count)
        folder.mkdir()
        config = ModelConfig(**fields)
        if config.rope_scaling == "none":  # then they mean nothing, and are not stored
            fields |= {"rope_factor": 1.0}
        if config.rope_scaling != "llama3":
            fields |= {"rope_original_context": 8192}
        if config.position == "learned":
            fields |= {"rope_theta": 10000.0, "rotary_dim": None, "rope_scaling": "none"}
            fields |= {"rope_factor": 1.0, "rope_original_context": 8192}
        source = make_run(folder / "run", fields)
        if config.rope_scaling == "llama3":
            check_same_function(folder, source)
        else:
            check_round_trip(folder, source)
        shutil.rmtree(folder)
        count += 1


def check_same_function(folder: Path, source: Path) -> None:
    """Few frequencies leave the bounds of Llama 3's scaling open; those that there are, are the same."""
    try:
        minilm.convert(exported(source, folder / "first"), "minilm", folder / "back")
    except ConfigError as error:
        assert "rope_freqs.weight: factors of another scaling" in str(error)  # noqa: PT017
        return
    torch.testing.assert_close(logits_of(source), logits_of(folder / "back"))


@pytest.mark.parametrize(
    ("low", "high", "original", "factor", "theta"),
    [
        (1.0, 4.0, 8192, 8.0, 5e5),  # Llama 3.1
        (1.0, 4.0, 8192, 32.0, 5e5),  # Llama 3.2
        (1.0, 4.0, 256, 8.0, 1000.0),
        (1.0, 3.0, 1000, 2.5, 1e4),
        (1.0, 8.0, 512, 4.0, 1e4),
    ],
)
def test_the_scaling_of_rope_follows_from_its_factors(
    low: float, high: float, original: int, factor: float, theta: float
) -> None:
    config = ModelConfig(head_dim=64, rope_theta=theta)
    fields = {
        "rope_scaling": "llama3",
        "rope_factor": factor,
        "rope_low_factor": low,
        "rope_high_factor": high,
        "rope_original_context": original,
    }
    factors = rope_factors(replace(config, **fields))  # type: ignore[arg-type]
    assert rope_scaling(config, factors) == fields
    assert rope_scaling(config, np.ones(32, np.float32)) == {}
    for other in (factors[::-1], factors[:-1], factors * np.nan, factors / 2):
        with pytest.raises(ConfigError, match="factors of another scaling"):
            rope_scaling(config, other)


@pytest.mark.parametrize("file_format", ["f16", "bf16"])
def test_sixteen_bits_stay_as_they_are(tmp_path: Path, file_format: str) -> None:
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}[file_format]
    source = make_run(tmp_path / "run", GROUPED, dtype)
    path = exported(source, tmp_path / "gguf", file_format)
    assert minilm.convert(path, "minilm", tmp_path / "back") == "minilm run"
    assert torch.equal(logits_of(source), logits_of(tmp_path / "back"))
    with safe_open(tmp_path / "back" / "model.safetensors", "pt") as weights:
        dtypes = {name: weights.get_tensor(name).dtype for name in weights.keys()}  # noqa: SIM118
    assert dtypes["blocks.0.attention.query.weight"] == dtype
    assert dtypes["final_norm.weight"] == torch.float32


# Half a step of the largest value of a block; of q4_0, whose steps are not symmetric, a whole one.
BOUNDS = {"q8_0": 0.5 / 127, "q4_0": 1 / 8}


@pytest.mark.parametrize("file_format", BOUNDS)
def test_quantized_values_are_those_of_ggufs_own_reader(tmp_path: Path, file_format: str) -> None:
    source = make_run(tmp_path / "run", GROUPED | {"d_feed_forward": 96})
    path, back = exported(source, tmp_path / "gguf", file_format), tmp_path / "back"
    words = f"minilm run, {file_format} dequantized to float32"
    assert minilm.convert(path, "minilm", back) == words
    weights, imported = (load_file(run / "model.safetensors") for run in (source, back))
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, stored in {
        "blocks.1.feed_forward.down.weight": "blk.1.ffn_down.weight",
        "blocks.0.attention.value.weight": "blk.0.attn_v.weight",
        "embedding.token.weight": "token_embd.weight",
    }.items():
        tensor = tensors[stored]
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(imported[name], expected.reshape(imported[name].shape))
    for name, values in weights.items():
        if values.ndim == 2:
            blocks = np.abs(values.reshape(-1, 32)).max(axis=1, keepdims=True)
            error = np.abs(imported[name] - values).reshape(-1, 32)
            # The scale itself is rounded to float16.
            assert (error <= 1.13 * BOUNDS[file_format] * blocks).all(), name
    assert exported(back, tmp_path / "again", file_format).stat().st_size == path.stat().st_size
    assert inspect(str(back)).verified


@pytest.mark.parametrize("dtype", GGUF_BLOCKS)
def test_every_type_is_read_as_gguf_reads_it_or_refused(tmp_path: Path, dtype: str) -> None:
    """Rows of one block each, more of them than are read at once."""
    elements, size = GGUF_BLOCKS[dtype]
    rows = CHUNK_ELEMENTS // elements + 3
    # The bytes of a float16 scale from 0 to 63 make a finite one, wherever it stands.
    raw = np.random.default_rng(0).integers(0, 64, (rows, size), dtype=np.uint8)
    path = tmp_path / "x"
    path.write_bytes(b"head" + raw.tobytes())
    tensor = StoredTensor("x", dtype, (rows, elements), raw.nbytes, 4, path)
    if why_unread(tensor) is not None:
        assert dtype.startswith(("q8_1", "q8_k", "q4_0_", "iq4_nl_"))
        return
    values = read_dequantized(tensor)
    assert (values.shape, values.dtype) == ((rows, elements), np.float32)
    if dtype.upper() in gguf.GGMLQuantizationType.__members__ and dtype not in ("q1_0", "q2_0"):
        kind = gguf.GGMLQuantizationType[dtype.upper()]
        np.testing.assert_array_equal(values, gguf.dequantize(raw, kind))


# llama.cpp's `enum llama_ftype`.
FILE_TYPES = {"Q4_1": 3, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_M": 12, "Q4_K_M": 15, "Q6_K": 18}


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_files_of_llama_cpps_own_quantizer(
    llama_cpp: LlamaCpp, tmp_path: Path, file_type: str
) -> None:
    """Their blocks are none that gguf's writer makes."""
    wide = {"d_model": 256, "d_feed_forward": 512, "num_heads": 8, "num_kv_heads": 2}
    source = make_run(tmp_path / "run", GROUPED | wide)
    path = tmp_path / "quantized.gguf"
    quantize(exported(source, tmp_path / "gguf"), path, FILE_TYPES[file_type])
    note = minilm.convert(path, "minilm", tmp_path / "back")
    assert file_type[:4].lower() in note
    imported = load_file(tmp_path / "back" / "model.safetensors")
    values = [gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors]
    # Rows of query and key stand in another order.
    sums = sorted(float(np.abs(each.astype(np.float64)).sum()) for each in values)
    ours = sorted(float(np.abs(each.astype(np.float64)).sum()) for each in imported.values())
    np.testing.assert_allclose(ours, sums, rtol=1e-12)
    tokens = list(range(1, 25))
    logits = load(tmp_path / "back").model(torch.tensor([tokens]))[0].numpy()
    llama_cpp.open(path)
    error = llama_cpp.logits(tokens) - logits
    # llama.cpp rounds activations to 8 bits, a tenth; another order of rows would give more than one.
    assert np.sqrt(np.mean(error**2)) < 0.2 * logits.std()


def test_transformers_reads_the_same_model(tmp_path: Path) -> None:
    """Its own reader of GGUF files: names, dequantization and the order of the rows are not ours."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="transformers reads no GGUF files without accelerate")
    for file_format in ("f32", "q8_0"):
        folder = tmp_path / file_format
        folder.mkdir()
        source = make_run(folder / "run", GROUPED | {"vocab_size": 520})
        save_tokenizer(source, "llama3")
        path = exported(source, folder / "gguf", file_format)
        minilm.convert(path, "minilm", folder / "back")
        model = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
        tokens = torch.arange(1, 33)[None]
        with torch.no_grad():
            expected = model(tokens).logits
        logits = load(folder / "back").model(tokens)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_other_programs_get_it_without_a_run_between(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", GROUPED | {"vocab_size": 520})
    save_tokenizer(source, "llama3")
    path = exported(source, tmp_path / "gguf")
    assert minilm.convert(path, "huggingface", tmp_path / "hf") == "LlamaForCausalLM"
    minilm.convert(tmp_path / "hf", "minilm", tmp_path / "back")
    assert torch.equal(logits_of(source), logits_of(tmp_path / "back"))
    (tmp_path / "again").mkdir()
    minilm.convert(path, "gguf", tmp_path / "again" / path.name, gguf_format="f32")
    assert content_of(tmp_path / "again" / path.name) == content_of(path)


def test_a_model_in_several_files(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", GROUPED)
    path = exported(source, tmp_path / "gguf")
    rewritten(path, tmp_path / "split.gguf", split_max_tensors=8)
    first, second, _ = sorted(tmp_path.glob("split-*.gguf"))
    minilm.convert(first, "minilm", tmp_path / "back")
    assert torch.equal(logits_of(source), logits_of(tmp_path / "back"))
    check_refused(second, "split 1 of a model, counted from 0, expected the first one")


def test_what_is_beside_the_file_is_not_read(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", TINY)
    path = exported(source, tmp_path / "gguf")
    for name in ("config.json", "generation_config.json", "chat_template.jinja", "tokenizer.json"):
        (path.parent / name).write_bytes(b"of another model")
    minilm.convert(path, "minilm", tmp_path / "back")
    assert not (tmp_path / "back" / "chat_template.jinja").exists()
    assert inspect(str(tmp_path / "back")).verified


# Tokenizers.

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from(list("  the catsdon't 12\n_")),
    max_size=40,
)
PIECES = st.lists(TEXTS | st.sampled_from([BEGIN, END, TURN, TOOL]), max_size=5).map("".join)


def imported_tokenizer(folder: Path, write: Any, vocab_size: int) -> tuple[Tokenizer, Tokenizer]:
    """A tokenizer, and what comes back of it."""
    source = make_run(folder / "run", GATED | NO_BIASES | {"vocab_size": vocab_size})
    write(source)
    path = exported(source, folder / "gguf")
    minilm.convert(path, "minilm", folder / "back")
    assert content_of(exported(folder / "back", folder / "again")) == content_of(path)
    original, back = (load_tokenizer(run / "tokenizer.json") for run in (source, folder / "back"))
    assert (back.end_of_text, back.other_ends) == (original.end_of_text, original.other_ends)
    assert back.vocab_size == original.vocab_size
    return original, back


@pytest.mark.parametrize("kind", KINDS)
def test_published_tokenizers_come_back(tmp_path: Path, kind: str) -> None:
    original, back = imported_tokenizer(tmp_path, lambda run: save_tokenizer(run, kind), 520)
    assert isinstance(back, LibraryTokenizer)

    @settings(max_examples=150, deadline=None)
    @given(PIECES)
    @example("e\u0301 \u212b")  # not in NFC
    def check(text: str) -> None:
        ids = original.encode(text)
        assert back.encode(text).tolist() == ids.tolist()
        assert back.encode_prompt(text) == original.encode_prompt(text)
        # SentencePiece's first space, which the published files take away when they decode.
        assert back.decode(ids) == original.decode(ids).removeprefix(" " * (kind == "llama2"))

    check()
    assert (tmp_path / "back" / "chat_template.jinja").read_text() == CHAT_TEMPLATE
    fields = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text())
    names = ("bos_token", "eos_token", "pad_token")
    assert [fields[name] for name in names] == [BEGIN, END, END]


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_minilms_own_tokenizers_come_back(tmp_path: Path, kind: str) -> None:
    vocab_size = 400 if kind == "bpe" else None
    made = build_tokenizer(kind, lambda: iter([make_text(2000)]), vocab_size)

    def write(run: Path) -> None:
        made.save(run / "tokenizer.json")

    original, back = imported_tokenizer(tmp_path, write, 400)
    assert type(back) is type(original)
    assert isinstance(back, ByteTokenizer) == (kind == "byte")

    @settings(max_examples=100, deadline=None)
    @given(PIECES)
    def check(text: str) -> None:
        ids = original.encode(text)
        assert back.encode(text).tolist() == ids.tolist()
        assert back.decode(ids) == original.decode(ids)

    check()


def test_several_ends_and_templates_come_back(tmp_path: Path) -> None:
    templates = [
        {"name": "default", "template": "{{ messages }}"},
        {"name": "tool_use", "template": "{{ tools }}"},
    ]

    def write(run: Path) -> None:
        save_tokenizer(run, "llama3")
        ids = json.loads((run / "generation_config.json").read_text())
        ends = [ids["eos_token_id"], ids["eos_token_id"] + 1]
        (run / "generation_config.json").write_text(json.dumps(ids | {"eos_token_id": ends}))
        (run / "chat_template.jinja").unlink()
        config = {"bos_token": BEGIN, "chat_template": templates}
        (run / "tokenizer_config.json").write_text(json.dumps(config))

    original, _ = imported_tokenizer(tmp_path, write, 520)
    assert original.other_ends
    fields = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text())
    assert fields["chat_template"] == templates


# Files as nobody exports them.


def rewritten(path: Path, out: Path, split_max_tensors: int = 0, **changes: Any) -> Path:
    """The file with other metadata or tensors: by key with `__` for a dot, None for none.

    `tensors` is a function of the list of (name, values).
    """
    reader = gguf.GGUFReader(path)
    change = changes.pop("tensors", lambda tensors: tensors)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    types = {name: field.types for name, field in reader.fields.items()}
    for name, value in changes.items():
        metadata[name.replace("__", ".")] = value
    writer = gguf.GGUFWriter(
        out, metadata.pop("general.architecture") or "", split_max_tensors=split_max_tensors
    )
    for name, value in metadata.items():
        if name.startswith("GGUF.") or value is None:
            continue
        kind = types.get(name, [None])
        is_same = name.replace(".", "__") not in changes
        if isinstance(value, list):
            writer.add_array(name, value)
        elif is_same and kind[0] is not None:
            writer.add_key_value(name, value, kind[0])
        else:
            writer.add_key_value(name, value, gguf.GGUFValueType.get_type(value))
    for name, values in change([(t.name, np.array(t.data)) for t in reader.tensors]):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def of_architecture(path: Path, name: str) -> dict[str, Any]:
    """The changes that make a file of `llama` one of another architecture."""
    changes: dict[str, Any] = {"general__architecture": name}
    for key, field in gguf.GGUFReader(path).fields.items():
        if key.startswith("llama."):
            changed = key.replace("llama.", f"{name}.").replace(".", "__")
            changes |= {key.replace(".", "__"): None, changed: field.contents()}
    return changes


def test_phi3_has_its_matrices_in_fewer_tensors(tmp_path: Path) -> None:
    """An architecture that is only imported; its rotated rows are halves of a head, as in minilm."""
    source = make_run(tmp_path / "run", GROUPED | {"num_layers": 2, "vocab_size": 520})
    save_tokenizer(source, "llama2")
    weights = load_file(source / "model.safetensors")

    def joined(tensors: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        dropped = ("attn_q.", "attn_k.", "attn_v.", "ffn_gate.", "ffn_up.")
        others = [each for each in tensors if not any(part in each[0] for part in dropped)]
        for i in range(2):
            for name, parts in (
                ("attn_qkv", ("attention.query", "attention.key", "attention.value")),
                ("ffn_up", ("feed_forward.gate", "feed_forward.up")),
            ):
                rows = [weights[f"blocks.{i}.{part}.weight"] for part in parts]
                others.append((f"blk.{i}.{name}.weight", np.concatenate(rows)))
        return others

    path = exported(source, tmp_path / "gguf")
    changes = of_architecture(path, "phi3") | {"tensors": joined}
    changed = rewritten(path, tmp_path / "phi3.gguf", **changes)
    minilm.convert(changed, "minilm", tmp_path / "back")
    assert read_config(tmp_path / "back" / "config.json") == read_config(source / "config.json")
    imported = load_file(tmp_path / "back" / "model.safetensors")
    assert imported.keys() == weights.keys()
    for name, values in imported.items():
        np.testing.assert_array_equal(values, weights[name], name)


def test_layers_without_rope_are_refused(tmp_path: Path) -> None:
    """llama.cpp's SmolLM3 has them whatever its file says."""
    path = exported(make_run(tmp_path / "run", GROUPED | {"num_layers": 4}), tmp_path / "gguf")
    changed = rewritten(path, tmp_path / "smollm3.gguf", **of_architecture(path, "smollm3"))
    check_refused(changed, "layers without RoPE")


def without(name: str) -> Any:
    return lambda tensors: [each for each in tensors if each[0] != name]


def reshaped(name: str, shape: tuple[int, ...]) -> Any:
    return lambda tensors: [
        (each, np.zeros(shape, np.float32) if each == name else values) for each, values in tensors
    ]


def with_zeros(size: int, *names: str) -> Any:
    return lambda tensors: [*tensors, *((name, np.zeros(size, np.float32)) for name in names)]


TOKENIZER = "tokenizer__ggml__"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"general__architecture": "rwkv6"}, "general.architecture 'rwkv6', expected one of gpt2,"),
    ({"general__architecture": "gemma2"}, "norms after attention and feed-forward"),
    ({"general__architecture": "qwen3moe"}, "'qwen3_moe', expected one of gpt2,"),
    ({"general__type": "adapter"}, "an adapter, expected a model"),
    ({"llama__context_length": None}, "no llama.context_length, expected a finite number"),
    ({"llama__block_count": "two"}, "llama.block_count 'two', expected a finite number"),
    ({"llama__block_count": 2.0}, "llama.block_count 2.0, expected a whole number"),
    ({"llama__block_count": -1}, "llama.block_count -1, expected a whole number"),
    ({"llama__block_count": 3}, "blk.2.attn_k.weight absent"),
    ({"llama__block_count": 2**31 - 1}, "num_hidden_layers: 2147483647"),
    ({"llama__embedding_length": 2**31 - 1}, "hidden_size: 2147483647"),
    ({"llama__attention__head_count": 0}, "expected"),
    ({"llama__attention__head_count": 7}, "expected"),
    ({"llama__attention__head_count_kv": [2, 2]}, "llama.attention.head_count_kv [2, 2]"),
    ({"llama__attention__head_count_kv": 3}, "expected"),
    ({"llama__attention__value_length": 4}, "keys of 8 and values of 4, expected heads of one"),
    ({"llama__attention__layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon"),
    ({"llama__attention__layer_norm_rms_epsilon": float("nan")}, "layer_norm_rms_epsilon nan"),
    ({"llama__rope__freq_base": "x"}, "llama.rope.freq_base 'x'"),
    ({"llama__rope__freq_base": float("inf")}, "llama.rope.freq_base inf"),
    ({"llama__rope__dimension_count": 9}, "rotary_dim"),
    ({"llama__rope__scaling__type": "yarn"}, "rope.scaling.type 'yarn', expected none or linear"),
    ({"llama__expert_count": 8}, "a mixture of experts, expected a dense model"),
    ({"tensors": without("blk.1.ffn_up.weight")}, "blk.1.ffn_up.weight absent"),
    ({"tensors": without("output_norm.weight")}, "output_norm.weight absent"),
    ({"tensors": without("token_embd.weight")}, "expected"),
    ({"tensors": with_zeros(3, "blk.0.extra")}, "blk.0.extra [3], expected no such tensor"),
    (
        {"tensors": with_zeros(16, "blk.0.attn_k.bias", "blk.1.attn_k.bias")},
        "biases of attention key alone",
    ),
    (
        {"tensors": with_zeros(48, "blk.0.ffn_up.bias", "blk.1.ffn_up.bias")},
        "biases of feed-forward up alone",
    ),
    ({"tensors": with_zeros(4, "rope_freqs.weight")}, "factors of another scaling"),
    ({"tensors": reshaped("blk.0.attn_q.weight", (64, 63))}, "blk.0.attn_q.weight [64, 63]"),
    (
        {"tensors": lambda all_: [(n, v.astype(np.int32) if "q" in n else v) for n, v in all_]},
        "blk.0.attn_q.weight: values of int32",
    ),
    ({f"{TOKENIZER}model": None}, "no tokenizer.ggml.model"),
    ({f"{TOKENIZER}model": "bert"}, "tokenizer.ggml.model 'bert', expected gpt2 or llama"),
    ({f"{TOKENIZER}model": 3}, "tokenizer.ggml.model 3"),
    ({f"{TOKENIZER}pre": "tekken"}, "tokenizer.ggml.pre 'tekken', expected one of gpt-2"),
    ({f"{TOKENIZER}pre": None}, "no tokenizer.ggml.pre"),
    ({f"{TOKENIZER}tokens": None}, "no tokenizer.ggml.tokens"),
    ({f"{TOKENIZER}tokens": ["a", "b"]}, "2 tokenizer.ggml.tokens, expected 256"),
    ({f"{TOKENIZER}tokens": ["a"] * 256}, "the token 'a' twice"),
    ({f"{TOKENIZER}tokens": list(range(256))}, "expected a list of texts"),
    ({f"{TOKENIZER}token_type": [1, 2]}, "2 tokenizer.ggml.token_type"),
    ({f"{TOKENIZER}merges": ["a b"]}, "the merge 'a b', expected two tokens that give a third"),
    ({f"{TOKENIZER}merges": [""]}, "the merge ''"),
    ({f"{TOKENIZER}eos_token_id": 256}, "tokenizer.ggml.eos_token_id 256"),
    ({f"{TOKENIZER}eos_token_id": "x"}, "tokenizer.ggml.eos_token_id 'x'"),
    ({f"{TOKENIZER}add_bos_token": 1}, "tokenizer.ggml.add_bos_token 1"),
    (
        {f"{TOKENIZER}add_bos_token": True, f"{TOKENIZER}bos_token_id": None},
        "no tokenizer.ggml.bos_token_id",
    ),
    ({"tokenizer__chat_template": 3}, "chat_template 'default' that is no text"),
]


def check_refused(path: Path, message: str) -> None:
    """In one line, which names the file, and nothing is left."""
    out = path.parent / "out"
    with pytest.raises(InputError) as error:
        minilm.convert(path, "minilm", out)
    line = str(error.value)
    assert message in line
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < 1000
    assert not out.exists()


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_is_no_model_is_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    source = make_run(tmp_path / "run", GROUPED)
    path = exported(source, tmp_path / "gguf")
    assert minilm.convert(rewritten(path, tmp_path / "same.gguf"), "minilm", tmp_path / "same")
    check_refused(rewritten(path, tmp_path / "changed.gguf", **changes), message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{TOKENIZER}scores": None}, "no tokenizer.ggml.scores"),
        ({f"{TOKENIZER}scores": [0.0] * 520}, "one score of"),
        ({f"{TOKENIZER}scores": [float("nan")] * 520}, "520 tokenizer.ggml.scores"),
        ({f"{TOKENIZER}token_type": [5] * 520}, "no token <0x00>, expected one for every byte"),
        # Each may have a merge at every place: megabytes of tokens would make gigabytes of merges.
        (
            {
                f"{TOKENIZER}tokens": [f"<0x{i:02X}>" for i in range(256)]
                + ["a" * (i + 700) for i in range(264)]
            },
            "characters, expected shorter ones",
        ),
    ],
)
def test_what_is_no_sentencepiece_is_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    source = make_run(tmp_path / "run", GROUPED | {"vocab_size": 520})
    save_tokenizer(source, "llama2")
    path = exported(source, tmp_path / "gguf")
    check_refused(rewritten(path, tmp_path / "changed.gguf", **changes), message)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    """Cut short anywhere, or with one byte changed: refused or, where that changes no size, read."""
    path = exported(make_run(tmp_path / "run", GROUPED), tmp_path / "gguf")
    raw = path.read_bytes()
    changed = tmp_path / "changed.gguf"
    for size in (0, 3, 4, 20, 100, 1000, len(raw) // 2, len(raw) - 1):
        changed.write_bytes(raw[:size])
        with pytest.raises(InputError) as error:
            minilm.convert(changed, "minilm", tmp_path / "out")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()
    choose = random.Random(0)
    header = raw.index(b"token_embd")
    for _ in range(150):
        position = choose.randrange(header + 2000)
        value = choose.choice([0, 255, raw[position] ^ 1])
        changed.write_bytes(raw[:position] + bytes([value]) + raw[position + 1 :])
        try:
            minilm.convert(changed, "minilm", tmp_path / "out")
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert not (tmp_path / "out").exists()
        else:
            shutil.rmtree(tmp_path / "out")


def test_a_head_that_differs_in_one_byte_is_its_own(tmp_path: Path) -> None:
    """However large the table is: one that is tied to it by mistake is lost."""
    source = make_run(tmp_path / "run", TINY | {"tied_embeddings": True})
    path = exported(source, tmp_path / "gguf")

    def with_other_head(tensors: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        rows = np.random.default_rng(0).random((300_000, 32), np.float32)
        head = rows.copy()
        head[202_000, 5] += 1  # between what the inspector compares
        others = [each for each in tensors if each[0] not in ("token_embd.weight", "output.weight")]
        return [("token_embd.weight", rows), ("output.weight", head), *others]

    tokens = [f"t{i}" for i in range(300_000 - 256)]
    content = gguf.GGUFReader(path).fields[f"{TOKENIZER}tokens".replace("__", ".")].contents()
    changed = rewritten(
        path,
        tmp_path / "changed.gguf",
        tensors=with_other_head,
        **{
            f"{TOKENIZER}tokens": content + tokens,
            f"{TOKENIZER}token_type": [1] * 300_000,
            "gptneox__vocab_size": 300_000,
        },
    )
    minilm.convert(changed, "minilm", tmp_path / "back")
    assert not read_config(tmp_path / "back" / "config.json").tied_embeddings


def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is let go before the next one is."""
    import weakref

    path = exported(make_run(tmp_path / "run", GROUPED), tmp_path / "gguf", "q8_0")
    alive: list[Any] = []
    read = tensor_io.read

    def tracked(tensor: StoredTensor) -> Any:
        values = read_dequantized(tensor) if tensor.dtype in GGUF_BLOCKS else read(tensor)
        assert sum(each() is not None for each in alive) <= 1
        alive.append(weakref.ref(values))
        return values

    monkeypatch.setattr("minilm.interop.model_source.read_dequantized", tracked)
    minilm.convert(path, "minilm", tmp_path / "back")
    assert len(alive) == 21
