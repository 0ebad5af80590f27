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
    assert "-p scripts.tools.gpu_tests" in correct
    assert result(folder, "correct")["result"] == {"gpu": {"mfu": 0.4}}
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


def test_the_rates_are_the_lines_that_were_printed_until_the_limit(
    gpu: Gpu, tmp_path: Path
) -> None:
    lines = """echo '{"rows": 64, "tokens_per_second": 7}'; echo a warning"""
    assert gpu("rates", "--out", "passed", action=lines).returncode == 0
    more = f"""{lines}; echo '{{"texts": 1}}'; sleep 100"""
    assert gpu("rates", "--out", "stopped", action=more, LIMIT="1").returncode == 1
    passed, stopped = (result(tmp_path / folder, "rates") for folder in ("passed", "stopped"))
    assert passed["outcome"] == "passed"
    assert passed["result"] == [{"rows": 64, "tokens_per_second": 7}]
    assert stopped["outcome"] == "stopped at its limit"
    assert stopped["result"] == [*passed["result"], {"texts": 1}]
    assert "a warning" in (tmp_path / "passed" / "rates.log").read_text(encoding="utf-8")
    assert gpu("rates", action="exit 3").returncode == 1
    failed = result(tmp_path / "gpu-results", "rates")
    assert (failed["outcome"], failed["status"], failed["result"]) == ("failed", 3, [])


TESTS = """
import os, pytest

@pytest.mark.parametrize("options", [{"compile": "on"}, {}], ids=lambda value: "-".join(value) or "plain")
def test_a_step(options):
    if options:
        os._exit(1)  # as at a limit

def test_wrong():
    raise AssertionError

@pytest.fixture
def absent():
    pytest.skip("none")

def test_absent(absent):
    pass

def test_another():
    pass
"""


def test_the_tests_that_a_limit_cut_off_are_named_and_compile(tmp_path: Path) -> None:
    (tmp_path / "test_card.py").write_text(TESTS, encoding="utf-8")
    plugins = ["-p", "no:cacheprovider", "-p", "scripts.tools.gpu_tests"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "test_card.py", "--out", "out.json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == {
        "passed": 2,
        "failed": ["test_card.py::test_wrong"],
        "skipped": ["test_card.py::test_absent"],
        "not_ended": ["test_card.py::test_a_step[compile]"],
    }


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
