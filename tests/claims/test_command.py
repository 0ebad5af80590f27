"""`minilm claims`: what it writes, and what it refuses."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import minilm
from minilm.checkpoint import load
from minilm.claims import (
    check,
)
from minilm.claims.subject import _check_plain
from minilm.cli.claims import main
from minilm.config.lora import LoraConfig
from minilm.errors import InputError
from minilm.transforms import lora
from tests.conftest import train_tiny

Capture = pytest.CaptureFixture[str]
Verdicts = dict[str, str]


def test_what_is_counted_needs_no_text(
    tiny_run: Path, cache: Path, tmp_path: Path, text_file: Path, capsys: Capture
) -> None:
    short = train_tiny(tmp_path / "short", text_file, cache, val_fraction=0.01)
    bare = tmp_path / "bare"
    shutil.copytree(tiny_run, bare)
    summary = json.loads((bare / "summary.json").read_text())
    del summary["data"]
    (bare / "summary.json").write_text(json.dumps(summary))
    for run, reason in (
        (short, "whole blocks of 16 tokens to evaluate on, expected 60"),
        (bare, "no validation split of its own, expected a text"),
    ):
        assert main([str(run), "--only", "compression", "majority"]) == 2
        assert reason in capsys.readouterr().err
        assert main([str(run), "--only", "majority", "bytes", "--json", "-"]) == 0
        report = json.loads(capsys.readouterr().out)
        claims = {claim["name"]: claim for claim in report["claims"]}
        assert "no group of inputs" in claims.pop("bytes/4-bit")["reason"]  # it is too narrow
        between = {"", "the estimate lies between the two regions"}
        assert all(claim["effect"] and claim["reason"] in between for claim in claims.values())
        assert (report["model"]["loss"], report["data"]["blocks"]) == (None, 0)
        assert main([str(run), "--only", "majority", "bytes"]) == 0
        assert "What is counted needs no text" in capsys.readouterr().out
    tiny = tmp_path / "tiny.txt"
    tiny.write_text("a text that is too short, and was asked for\n" * 3)
    assert main([str(tiny_run), "--only", "majority", "--data", str(tiny)]) == 2
    assert "give a longer text as --data" in capsys.readouterr().err


def test_the_command_writes_json_a_page_and_prose(
    tiny_run: Path, cache: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "80")
    page, prose = tmp_path / "page.html", tmp_path / "prose.md"
    names = ["--only", "majority", "bytes", "compression", "majority"]
    outputs = ["--html", str(page), "--markdown", str(prose)]
    assert main([str(tiny_run), *names, *outputs]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "majority/all: the feed-forward of this model" in text
    assert '<section id="claims"' in page.read_text()
    assert prose.read_text().startswith("# Claims\n")
    values = []
    for _ in range(2):
        assert main([str(tiny_run), *names, "--json", "-"]) == 0
        values.append(json.loads(capsys.readouterr().out))
        del values[-1]["seconds"]
    assert values[0] == values[1]
    assert values[0]["schema"] == "minilm.claims/1"
    claims = {claim["name"]: claim for claim in values[0]["claims"]}
    assert len(claims) == len(values[0]["claims"]), "a name that is given twice is tested once"
    assert claims["majority/all"]["rule"]["supported"] == [0.5, None]
    assert set(claims["bytes/file"]) >= {"verdict", "effect", "n", "trials", "reason", "details"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "--only", "taste"], "--only: 'taste', expected one of one-parameter, "),
        (["RUN", "--only"], "--only: no name, expected one of one-parameter, "),
        (["RUN", "--budget", "5m"], "--budget: given without --train-claims, expected both"),
        (["RUN", "--train-claims", "--budget", "soon"], "--budget: "),
        (["RUN", "--json", "-", "--markdown", "-"], "standard output: - for --json and --markdown"),
        (["RUN", "--data", "TEXT", "--json", "TEXT"], "which is a target or another output"),
        (["RUN", "--html", "RUN/new", "--json", "RUN/new"], "which is a target or another output"),
        (["RUN", "--html", "RUN/config.json"], "config.json, which is a file of a model or a run"),
        (["/nowhere"], "/nowhere"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    message: str,
    tiny_run: Path,
    text_file: Path,
    cache: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    paths, before = {"RUN": str(tiny_run), "TEXT": str(text_file)}, text_file.read_bytes()
    for name, path in paths.items():
        arguments = [each.replace(name, path) for each in arguments]
    assert main(arguments) == 2
    assert text_file.read_bytes() == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize(
    ("number", "more", "note"),
    [
        (signal.SIGINT, [], "Ctrl-C: stopped before the verdicts, nothing was written\n"),
        (signal.SIGTERM, ["--train-claims"], "; the same command goes on with what was trained\n"),
    ],
)
def test_a_signal_is_told_in_one_line(
    number: signal.Signals,
    more: list[str],
    note: str,
    tiny_run: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measure(*_: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(check, "check_subject", measure)
    page = tmp_path / "page.html"
    assert main([str(tiny_run), "--only", "majority", "--html", str(page), *more]) == 128 + number
    message = capsys.readouterr().err
    assert message.startswith("Ctrl-C: " if number == signal.SIGINT else "SIGTERM: ")
    assert message.endswith(note)
    assert message.count("\n") == 1
    assert not page.exists()


def test_a_quantized_run_an_adapter_and_what_cannot_be_written_are_one_line(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    minilm.quantize(tiny_run, tmp_path / "int8", format="int8")
    shutil.copytree(tiny_run, tmp_path / "nan")
    weights = load_file(tmp_path / "nan" / "model.safetensors")
    weights["embedding.token.weight"][0, 0] = torch.nan
    with safe_open(tmp_path / "nan" / "model.safetensors", "pt") as stream:
        metadata = stream.metadata()
    save_file(weights, tmp_path / "nan" / "model.safetensors", metadata)
    for arguments, expected in (
        ([tmp_path / "int8"], "a quantized run, expected matrices of floats"),
        ([tiny_run, "--seed", "-1"], "--seed: -1, expected a number from 0 to"),
        ([tiny_run, "--seed", str(2**64)], f"--seed: {2**64}, expected a number from 0 to"),
        ([tmp_path / "nan"], "embedding.token.weight has values that are no numbers"),
        ([tiny_run, "--html", tmp_path], "where nothing can be written"),
        ([tiny_run, "--html", tmp_path / "none" / "page.html"], "where nothing can be written"),
    ):
        assert main([*map(str, arguments), "--only", "majority"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert expected in error
        assert error.count("\n") == 1
    model = lora.apply(load(tiny_run).model, LoraConfig(rank=1))
    with pytest.raises(InputError, match=r"an adapter on a base, expected one model; .*--merge"):
        _check_plain(model, tmp_path)
