"""What the processes do when torchrun itself is killed, and one of four of them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.parallel.processes import (
    ADAMW,
    ODD,
    SETTINGS,
    children,
    command_line,
    end,
    environment,
    rank,
    torchrun,
)

pytestmark = pytest.mark.distributed


def killed(layout: str, folder: Path, text: Path, rank_of_killed: int | None) -> tuple[int, str]:
    """The process that was killed, torchrun or one of the four that it started, and what all of them said."""
    run = folder / "run"
    settings = SETTINGS | ADAMW | {"parallel": layout, "max_steps": 1_000_000}
    options = [*command_line(ODD, settings), "--run-dir", str(run)]
    command = [str(ROOT / "scripts" / "train.py"), "--data", str(text), "--tokenizer=byte"]
    process = subprocess.Popen(
        torchrun(*command, *options, processes=4),
        env=environment(folder / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (run / "metrics.jsonl").is_file():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        workers = {rank(pid): pid for pid in children(process.pid) if rank(pid)}
        assert len(workers) == 4
        pid = process.pid if rank_of_killed is None else workers[str(rank_of_killed)]
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while any(rank(pid) for pid in workers.values()):
            assert time.monotonic() < deadline, "they go on"
            time.sleep(0.05)
        _, errors = process.communicate(timeout=60)
    finally:
        end(process)
    return pid, errors


@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_processes_whose_torchrun_was_killed_end_and_say_so(
    layout: str, text_file: Path, tmp_path: Path
) -> None:
    pid, errors = killed(layout, tmp_path, text_file, None)
    assert f"torchrun, which started it (pid {pid}), ended, expected all of them" in errors
    assert "frame #" not in errors, "no stack trace of torch"


@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_the_one_of_four_that_was_killed_is_named_alone(
    layout: str, text_file: Path, tmp_path: Path
) -> None:
    pid, errors = killed(layout, tmp_path, text_file, 2)
    (error,) = (line for line in errors.splitlines() if line.startswith("error: "))
    assert f": process 2 (pid {pid} on " in error
    assert error.count("(pid ") == 1
