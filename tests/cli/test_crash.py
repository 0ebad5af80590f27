"""A short form of scripts/tools/crash.py: whatever stops a run, it resumes bit for bit."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

CRASH = runpy.run_path(str(ROOT / "scripts" / "tools" / "crash.py"))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("crash")
    faults = ["kill", "full-disk", "int"]
    return folder, CRASH["prove"](folder, times=3, faults=faults, steps=240, seed=0)


@pytest.mark.slow
def test_a_run_that_was_stopped_again_and_again_ends_the_same(outcome: tuple[Path, dict]) -> None:
    _, result = outcome
    assert result["stops"]["stops"] == 3
    assert all(result["stops"][fault] == 1 for fault in ("kill", "full-disk", "int"))
    assert result["unreadable"] == result["other exits"] == []
    assert result["differences"] == []


@pytest.mark.parametrize("wrong", [["--times", "0"], ["--steps", "-5"]])
def test_nothing_is_proved_by_no_stop(
    wrong: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["crash.py", *wrong])
    assert CRASH["main"]() == 2
    assert capsys.readouterr().err == "error: --times, --steps: expected at least 1\n"


@pytest.mark.slow
def test_it_would_see_a_difference_and_a_damaged_checkpoint(outcome: tuple[Path, dict]) -> None:
    folder, _ = outcome
    whole, stopped = folder / "whole", folder / "stopped"
    broken = folder / "broken"
    shutil.copytree(stopped, broken)
    weights = bytearray((broken / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (broken / "model.safetensors").write_bytes(weights)
    assert CRASH["_differences"](whole, broken) == ["model.safetensors differs"]
    newest = max((broken / "resume").iterdir())
    newest.write_bytes(newest.read_bytes()[:-10])
    (fault,) = CRASH["_unreadable"](broken)
    assert newest.name in fault
