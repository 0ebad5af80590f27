"""GGUF files: what is refused, and that a stock llama.cpp computes what minilm computes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import load_file
from tokenizers import normalizers, pre_tokenizers

from minilm import inspect
from minilm.cli.convert import main
from minilm.training.train import train
from tests.conftest import make_text
from tests.interop.published_tokenizers import (
    BEGIN,
    CHAT_TEMPLATE,
    END,
    published_tokenizer,
    save_settings,
)
from tests.interop.shapes import GATED, NO_BIASES, SHAPES, TINY, make_run

gguf = pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
Capture = pytest.CaptureFixture[str]

RUNS = [
    name
    for name, (_, fields) in SHAPES.items()
    if fields.get("feed_forward") not in ("relu2", "geglu") and not fields.get("sliding_window")
]
# As llama.cpp computes GELU: by its approximation through tanh, from a table of float16.
ROUGH = {"gpt2", "gpt2-tied", "neox", "neox-theta", "pythia"}


def converted(source: Path, out: Path, file_format: str = "f32") -> Path:
    assert main([str(source), "--to", "gguf", "--out", str(out), "--gguf-format", file_format]) == 0
    return out


@pytest.mark.parametrize("file_format", ["f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("name", RUNS)
def test_every_parameter_is_in_the_file(tmp_path: Path, name: str, file_format: str) -> None:
    source = make_run(tmp_path / "run", SHAPES[name][1])
    report = inspect(str(converted(source, tmp_path / "out.gguf", file_format)))
    # Biases of zeros and a head of its own, which llama.cpp asks for.
    added = {
        "neox-theta": 2 * 4 * 32,
        "gpt2-no-biases": 2 * (4 * 32 + 48 + 32 + 2 * 32) + 32,
        "starcoder2-no-biases": 2 * (4 * 32 + 48 + 32),
        "neox-tied": 0 if report.tied else 256 * 32,
    }.get(name, 0)
    scaling = 16 if name == "llama-3.1" else 0  # buffers, not parameters
    assert report.parameters.total == inspect(str(source)).parameters.total + added
    assert report.verified, report.mismatches
    assert scaling == 0 or report.parameters.buffers == scaling


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (TINY | {"feed_forward": "relu2"}, "model.feed_forward: relu2"),
        (GATED | {"feed_forward": "geglu"}, "model.feed_forward: geglu"),
        (GATED | NO_BIASES | {"sliding_window": 5}, "model.sliding_window: 5 in a context of 32"),
        (TINY | {"ngram": 2}, "model.ngram: 2"),
    ],
)
def test_what_llama_cpp_lacks_is_refused_by_its_field(
    tmp_path: Path, capsys: Capture, fields: dict[str, Any], message: str
) -> None:
    source = make_run(tmp_path / "run", fields)
    assert main([str(source), "--to", "gguf", "--out", str(tmp_path / "out.gguf")]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_characters_have_no_counterpart(tmp_path: Path, capsys: Capture, cache: Path) -> None:
    data = tmp_path / "text.txt"
    data.write_text(make_text(300))
    train(
        data=str(data),
        run_dir=tmp_path / "run",
        tokenizer="char",
        model=TINY,
        settings={"max_steps": 1, "eval_every": 1, "compile": "off"},
        cache=cache,
    )
    assert main([str(tmp_path / "run"), "--to", "gguf", "--out", str(tmp_path / "o.gguf")]) == 2
    assert "a char tokenizer, expected bytes or BPE" in capsys.readouterr().err


def test_an_ollama_modelfile(tmp_path: Path, capsys: Capture) -> None:
    source, out = make_run(tmp_path / "run", TINY), tmp_path / "out.gguf"
    arguments = [str(source), "--to", "gguf", "--out", str(out)]
    assert main([*arguments, "--modelfile", str(tmp_path / "Modelfile")]) == 0
    lines = ["FROM ./out.gguf", "PARAMETER num_ctx 32", 'TEMPLATE """{{ .Prompt }}"""']
    assert (tmp_path / "Modelfile").read_text().splitlines() == lines
    out.unlink()
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "chat_template.jinja").rename(source / "chat_template.jinja")
    (tmp_path / "sub").mkdir()
    assert main([*arguments, "--modelfile", str(tmp_path / "sub" / "Modelfile")]) == 0
    lines = ["FROM ./../out.gguf", "PARAMETER num_ctx 32"]
    assert (tmp_path / "sub" / "Modelfile").read_text().splitlines() == lines
    out.unlink()
    assert main([*arguments, "--modelfile", str(tmp_path / "Modelfile")]) == 2
    assert "Modelfile: something that exists" in capsys.readouterr().err
    assert not out.exists()


BROKEN = {
    "tokenizer_config.json": [b"[]", b'{"chat_template": 3}', b'{"chat_template": [1]}', b"{"],
    "chat_template.jinja": [b"\xff"],
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_beside_a_tokenizer_is_one_line(
    tmp_path: Path, capsys: Capture, name: str
) -> None:
    source = make_run(tmp_path / "run", TINY)
    for content in BROKEN[name]:
        (source / name).write_bytes(content)
        assert main([str(source), "--to", "gguf", "--out", str(tmp_path / "out.gguf")]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert name in line
        assert not (tmp_path / "out.gguf").exists()


def test_a_normalizer_that_llama_cpp_has_not_is_refused(tmp_path: Path, capsys: Capture) -> None:
    source = make_run(tmp_path / "run", TINY | {"vocab_size": 520})
    backend = published_tokenizer("llama3")
    backend.normalizer = normalizers.Lowercase()
    backend.save(str(source / "tokenizer.json"))
    assert main([str(source), "--to", "gguf", "--out", str(tmp_path / "out.gguf")]) == 2
    assert "tokenizer.json: normalizer: Lowercase, expected none or NFC" in capsys.readouterr().err


def test_merges_that_sentencepiece_has_not_are_refused(tmp_path: Path, capsys: Capture) -> None:
    source = make_run(tmp_path / "run", TINY | {"vocab_size": 520})
    content = json.loads(published_tokenizer("llama2").to_str())
    content["model"]["merges"] = content["model"]["merges"][:-1]
    (source / "tokenizer.json").write_text(json.dumps(content))
    assert main([str(source), "--to", "gguf", "--out", str(tmp_path / "out.gguf")]) == 2
    assert "without the merge of two of its parts" in capsys.readouterr().err


def stored(path: Path, key: str) -> list[Any]:
    """The values of a key: texts, or numbers."""
    field = gguf.GGUFReader(path).fields[key]
    values = [field.parts[index] for index in field.data]
    if field.types[-1] == gguf.GGUFValueType.STRING:
        return [bytes(value).decode() for value in values]
    return [value.tolist()[0] for value in values]


def tokenizer_run(folder: Path, backend: tokenizers.Tokenizer) -> Path:
    """A run of 520 tokens with that tokenizer and no file beside it."""
    source = make_run(folder, TINY | {"vocab_size": 520})
    backend.save(str(source / "tokenizer.json"))
    return source


@pytest.mark.parametrize(
    ("kind", "model", "pre"),
    [
        ("gpt2", "gpt2", "gpt-2"),
        ("smollm", "gpt2", "smollm"),
        ("llama3", "gpt2", "llama-bpe"),
        ("llama3-no-words", "gpt2", "dbrx"),
        ("qwen2", "gpt2", "qwen2"),
        ("llama2", "llama", "default"),
        ("gemma", "llama", "default"),
        ("mistral", "llama", "default"),
    ],
)
def test_a_published_tokenizer_is_stored_as_llama_cpp_reads_it(
    tmp_path: Path, kind: str, model: str, pre: str
) -> None:
    backend = published_tokenizer("llama2" if kind == "mistral" else kind)
    if kind == "mistral":
        backend.normalizer = None
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    if model == "llama":
        backend.add_special_tokens(["<unk>"])
    backend.add_tokens(["[PAD519]"])
    source = tokenizer_run(tmp_path / "run", backend)
    save_settings(source, backend)
    path = converted(source, tmp_path / "out.gguf")
    assert stored(path, "tokenizer.ggml.model") == [model]
    assert stored(path, "tokenizer.ggml.pre") == [pre]
    tokens, types = (stored(path, f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
    vocabulary = backend.get_vocab()
    assert tokens[: len(vocabulary)] == sorted(vocabulary, key=vocabulary.__getitem__)
    assert len(set(tokens)) == 520
    assert (tokens[-1], types[-1]) == ("[PAD519]_", gguf.TokenType.UNUSED)
    assert types[vocabulary["[PAD519]"]] == gguf.TokenType.USER_DEFINED
    assert types[vocabulary[END]] == gguf.TokenType.CONTROL
    assert stored(path, "tokenizer.ggml.eos_token_id") == [vocabulary[END]]
    assert stored(path, "tokenizer.chat_template") == [CHAT_TEMPLATE]
    if model == "llama":
        assert types[vocabulary["<unk>"]] == gguf.TokenType.UNKNOWN
        assert types[vocabulary["<0x41>"]] == gguf.TokenType.BYTE
        assert stored(path, "tokenizer.ggml.add_space_prefix") == [kind != "gemma"]
        scores = stored(path, "tokenizer.ggml.scores")
        merged = [vocabulary[a + b] for a, b in json.loads(backend.to_str())["model"]["merges"]]
        by_score = sorted(set(merged), key=lambda token: -scores[token])
        assert by_score == list(dict.fromkeys(merged)), "in the order of their first merges"


def split_on_digits(content: dict[str, Any]) -> None:
    content["pre_tokenizer"] = {"type": "Digits", "individual_digits": True}


def move_a_merge(content: dict[str, Any]) -> None:
    merges = content["model"]["merges"]
    joined = [a + b for a, b in merges]
    several = next(i for i, token in enumerate(joined) if joined.count(token) > 1)
    merges.append(merges.pop(several))


def begin_twice(content: dict[str, Any]) -> None:
    single = content["post_processor"]["single"]
    single.insert(0, single[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (split_on_digits, "a step of type Digits, expected spaces as SentencePiece has them"),
        (move_a_merge, "with merges of several ranks, expected the merges of a SentencePiece"),
        (begin_twice, "post_processor: 2 tokens beside a prompt, expected at most one before it"),
    ],
)
def test_a_tokenizer_that_llama_cpp_has_not_is_refused(
    tmp_path: Path, capsys: Capture, change: Any, message: str
) -> None:
    source = tokenizer_run(tmp_path / "run", published_tokenizer("llama2"))
    content = json.loads((source / "tokenizer.json").read_text())
    change(content)
    (source / "tokenizer.json").write_text(json.dumps(content))
    assert main([str(source), "--to", "gguf", "--out", str(tmp_path / "out.gguf")]) == 2
    assert message in capsys.readouterr().err


def test_a_tokenizer_without_an_end_has_none_in_the_file(tmp_path: Path) -> None:
    backend = published_tokenizer("gpt2")
    path = converted(tokenizer_run(tmp_path / "run", backend), tmp_path / "out.gguf")
    assert "tokenizer.ggml.eos_token_id" not in gguf.GGUFReader(path).fields
    assert stored(path, "tokenizer.ggml.bos_token_id") == [backend.token_to_id(BEGIN)]


def test_a_special_token_that_gguf_rejects_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    source = make_run(tmp_path / "run", SHAPES["gpt2"][1])
    folder = tmp_path / "folder"
    assert main([str(source), "--to", "huggingface", "--out", str(folder)]) == 0
    config = json.loads((folder / "config.json").read_text())
    for name in ("generation_config.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "config.json").write_text(json.dumps(config | {"bos_token_id": -1}))
    assert main([str(folder), "--to", "gguf", "--out", str(tmp_path / "out.gguf")]) == 2
    error = capsys.readouterr().err
    assert "what gguf rejects (ValueError: invalid value for special token type bos: -1)" in error
    assert not (tmp_path / "out.gguf").exists()


def test_a_template_that_is_too_large_is_refused(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_run(tmp_path / "run", TINY)
    (source / "chat_template.jinja").write_text("{{ messages }}")
    monkeypatch.setattr("minilm.formats.text_file.MAX_JSON_BYTES", 5)
    assert main([str(source), "--to", "gguf", "--out", str(tmp_path / "out.gguf")]) == 2
    assert "chat_template.jinja: no UTF-8, or too much of it" in capsys.readouterr().err


def test_bfloat16_weights_are_the_same_numbers_in_float32(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", TINY, torch.bfloat16)
    path = converted(source, tmp_path / "out.gguf", "f32")
    expected = load_file(source / "model.safetensors")["blocks.0.attention.output.weight"]
    (tensor,) = [
        each
        for each in gguf.GGUFReader(path).tensors
        if each.name in ("blk.0.attn_output.weight", "blk.0.attn_out.weight")
    ]
    assert tensor.data.tolist() == expected.float().tolist()


def test_without_the_package_it_is_one_line(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_run(tmp_path / "run", TINY)
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert main([str(source), "--to", "gguf", "--out", str(tmp_path / "out.gguf")]) == 2
    assert "pip install 'minilm[gguf]'" in capsys.readouterr().err
    assert not (tmp_path / "out.gguf").exists()


def test_a_modelfile_is_of_a_gguf_file_alone(tmp_path: Path, capsys: Capture) -> None:
    source = make_run(tmp_path / "run", TINY)
    modelfile = str(tmp_path / "Modelfile")
    for to, out in (("huggingface", str(tmp_path / "out")), ("gguf", "/dev/null")):
        assert main([str(source), "--to", to, "--out", out, "--modelfile", modelfile]) == 2
        assert capsys.readouterr().err.startswith("error: --modelfile: given, expected only with")
