"""evaluate(): a run's own split, a text, an imported model, and what it refuses."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from minilm.checkpoint import load
from minilm.cli.evaluate import main
from minilm.errors import InputError
from minilm.interop.convert import convert
from minilm.model.transformer import next_token_loss
from minilm.operations.evaluate import evaluate

Capture = pytest.CaptureFixture[str]


def test_the_own_split_of_a_run_gives_the_loss_of_its_summary(tiny_run: Path) -> None:
    summary = json.loads((tiny_run / "summary.json").read_text())
    result = evaluate(tiny_run, device="cpu", dtype=summary["dtype"])
    assert result.loss == pytest.approx(summary["best_val_loss"], abs=1e-6)
    assert result.bits_per_byte == pytest.approx(summary["best_val_bits_per_byte"], abs=1e-6)
    assert result.tokens == summary["data"]["val_tokens"] - 1
    assert result.perplexity == math.exp(result.loss)


def test_all_of_a_text_is_evaluated(tiny_run: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("some words and some more words. " * 3)
    result = evaluate(tiny_run, str(text), device="cpu", dtype="float32")
    model, tokenizer = load(tiny_run)
    ids = torch.from_numpy(tokenizer.encode(text.read_text()))
    assert result.tokens == len(ids) - 1
    t = model.config.context_length
    losses = [
        next_token_loss(
            model, ids[None, i : i + t][:, : len(ids) - 1 - i], ids[None, i + 1 : i + t + 1]
        )
        * len(ids[i + 1 : i + t + 1])
        for i in range(0, len(ids) - 1, t)
    ]
    assert result.loss == pytest.approx(float(sum(losses)) / (len(ids) - 1), abs=1e-5)


def test_an_imported_model_is_evaluated_on_a_text(tiny_run: Path, tmp_path: Path) -> None:
    convert(tiny_run, "huggingface", tmp_path / "model")
    text = tmp_path / "text.txt"
    text.write_text("some words and some more words. " * 3)
    imported = evaluate(tmp_path / "model", str(text), device="cpu", dtype="float32")
    assert imported.loss == pytest.approx(
        evaluate(tiny_run, str(text), device="cpu", dtype="float32").loss, abs=1e-5
    )
    with pytest.raises(
        InputError, match="no validation split of its own, expected a text; give --data"
    ):
        evaluate(tmp_path / "model")


def test_a_text_that_changed_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    summary = json.loads((tiny_run / "summary.json").read_text())
    text = tmp_path / "text.txt"
    text.write_text("another text")
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "summary.json").write_text(
        json.dumps(summary | {"data": summary["data"] | {"source": str(text)}})
    )
    with pytest.raises(InputError, match="the text has changed since: give --data"):
        evaluate(run)
    text.unlink()
    with pytest.raises(InputError, match="or give --data"):
        evaluate(run)


def test_the_command_prints_and_writes_json(tiny_run: Path, capsys: Capture) -> None:
    assert main([str(tiny_run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert main([str(tiny_run)]) == 0
    out = capsys.readouterr().out
    assert f"{result['loss']:.4f} nats a token" in out
    assert f"over {result['tokens']:,} tokens, the validation split of" in out
    assert main([str(tiny_run), "--data", "missing.txt"]) == 2
    assert capsys.readouterr().err.startswith("error: missing.txt: ")


def test_a_terminal_sees_how_far_it_is(
    tiny_run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(tiny_run, device="cpu")
    assert "evaluating" not in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    evaluate(tiny_run, device="cpu")
    assert "evaluating: " in capsys.readouterr().err
