"""scripts/tools/gpu.sh without a GPU: which stages run, within which limits, and what each leaves behind.

An interpreter that is asked for is replaced by a script, which says that there is a GPU, and then does what
the test has it do in place of the stage.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "scripts" / "tools" / "gpu.sh"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CUDA: Linux, with GNU's timeout")
STAGES = ["correct", "mfu", "best", "rates", "peer"]

# Notes the stage and its arguments; `bench.py --out FILE` writes FILE.
STAND_IN = """#!/bin/sh
case "$*" in
-c*) exit {gpu} ;;
*-\\ *) : > "$2"; exit 0 ;;
esac
echo "$*" >> "{calls}"
{action}
while [ $# -gt 1 ]; do
    [ "$1" = --out ] && echo '{{"gpu": {{"mfu": 0.4}}}}' > "$2"
    shift
done
exit 0
"""

Gpu = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def gpu(tmp_path: Path) -> Gpu:
    def run(
        *arguments: str, action: str = "", has_gpu: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        python = tmp_path / "python"
        fields = {"gpu": 0 if has_gpu else 1, "calls": tmp_path / "calls", "action": action}
        python.write_text(STAND_IN.format(**fields), encoding="utf-8")
        python.chmod(0o755)
        return subprocess.run(
            [str(SCRIPT), *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHON": str(python)} | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def result(folder: Path, stage: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / f"{stage}.json").read_text(encoding="utf-8"))
    return value


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text(encoding="utf-8").splitlines()


def test_the_default_stages_begin_with_correctness(gpu: Gpu, tmp_path: Path) -> None:
    done = gpu()
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "gpu-results"
    assert {path.stem for path in folder.glob("*.json")} == {"correct", "mfu", "best"}
    correct, *benches = calls(tmp_path)
    assert "-m pytest" in correct
    assert "-m gpu" in correct
    assert "tests/test_gpu.py" in correct
    assert [re.findall(r"--stages (\w+)", call) for call in benches] == [["mfu"], ["best"]]
    assert all("--only gpu" in call for call in benches)
    assert result(folder, "correct")["result"] is None
    measured = result(folder, "mfu")
    assert measured["result"] == {"gpu": {"mfu": 0.4}}
    assert (measured["stage"], measured["outcome"], measured["status"]) == ("mfu", "passed", 0)


def test_the_default_limits_are_at_most_six_minutes() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    limits = {
        name: int(seconds) for name, seconds in re.findall(r"^    (\w+)\) echo (\d+)", text, re.M)
    }
    (default,) = re.findall(r'^DEFAULT="([\w ]+)"', text, re.M)
    assert list(limits) == STAGES
    assert sum(limits[name] for name in default.split()) <= 360


def test_the_other_stages_are_those_of_the_benchmark_and_the_rates() -> None:
    from importlib import import_module

    benchmark = list(import_module("scripts.benchmarks.gpu").STAGES)
    assert sorted([*benchmark, "correct", "rates"]) == sorted(STAGES)


def test_a_stage_that_is_too_slow_is_stopped_and_the_next_one_runs(
    gpu: Gpu, tmp_path: Path
) -> None:
    slow = 'case "$*" in *"--stages mfu"*) sleep 100 ;; esac'
    begin = time.monotonic()
    done = gpu("mfu", "best", "--out", "here", action=slow, LIMIT="1")
    assert time.monotonic() - begin < 30
    assert done.returncode == 1
    stopped, passed = (result(tmp_path / "here", name) for name in ("mfu", "best"))
    assert (stopped["outcome"], stopped["result"]) == ("stopped at its limit", None)
    assert stopped["limit"] == 1
    assert passed["outcome"] == "passed"


def test_a_stage_that_fails_is_told(gpu: Gpu, tmp_path: Path) -> None:
    done = gpu("correct", action="echo 3 failed, 20 passed; exit 1")
    assert done.returncode == 1
    assert "3 failed, 20 passed" in done.stderr
    assert result(tmp_path / "gpu-results", "correct")["outcome"] == "failed"
    log = (tmp_path / "gpu-results" / "correct.log").read_text(encoding="utf-8")
    assert log == "3 failed, 20 passed\n"


def test_data_and_peer_are_passed_on_from_any_folder(gpu: Gpu, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("abc")
    (tmp_path / "nanoGPT").mkdir()
    (tmp_path / "nanoGPT" / "train.py").touch()
    done = gpu("peer", "--data", "text.txt", "--peer", str(tmp_path / "nanoGPT"))
    assert done.returncode == 0, done.stderr
    (call,) = calls(tmp_path)
    assert f"--data {tmp_path / 'text.txt'}" in call
    assert f"--peer {tmp_path / 'nanoGPT'}" in call


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["mfx"], "mfx: no such stage, expected correct, mfu, best, rates or peer"),
        (["--data", "missing"], "missing: no such file"),
        (["--data"], "--data: nothing after it, expected a path"),
        (["peer"], "--peer: expected a checkout of nanoGPT"),
    ],
)
def test_bad_usage_is_one_line(
    gpu: Gpu, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    done = gpu(*arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(expected)
    assert not (tmp_path / "gpu-results").exists()


def test_without_a_gpu_it_says_so(gpu: Gpu, tmp_path: Path) -> None:
    done = gpu(has_gpu=False)
    assert done.returncode == 2
    assert "torch finds no CUDA GPU" in done.stderr
    assert not (tmp_path / "gpu-results").exists()
