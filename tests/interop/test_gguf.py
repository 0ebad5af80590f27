"""GGUF files: what is refused, and that a stock llama.cpp computes what minilm computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minilm import inspect
from minilm.cli.convert import main
from minilm.training.train import train
from tests.conftest import make_text
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
