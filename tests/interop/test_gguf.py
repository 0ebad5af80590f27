"""GGUF files: what is refused, and that a stock llama.cpp computes what minilm computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers

from minilm import inspect
from minilm.cli.convert import main
from minilm.training.train import train
from tests.conftest import make_text
from tests.interop.published_tokenizers import published_tokenizer
from tests.interop.shapes import GATED, NO_BIASES, SHAPES, TINY, make_run

pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
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
