"""What the processes do when torchrun itself is killed."""

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


@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_processes_whose_torchrun_was_killed_end_and_say_so(
    layout: str, text_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = SETTINGS | ADAMW | {"parallel": layout, "max_steps": 1_000_000}
    options = [*command_line(ODD, settings), "--run-dir", str(run)]
    command = [str(ROOT / "scripts" / "train.py"), "--data", str(text_file), "--tokenizer=byte"]
    process = subprocess.Popen(
        torchrun(*command, *options),
        env=environment(tmp_path / "cache"),
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
        workers = [pid for pid in children(process.pid) if rank(pid)]
        assert len(workers) == 2
        os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while any(rank(pid) for pid in workers):
            assert time.monotonic() < deadline, "they go on without it"
            time.sleep(0.05)
        _, errors = process.communicate(timeout=60)
    finally:
        end(process)
    lines = [line for line in errors.splitlines() if "ended" in line]
    # The first to see it may close the connection that the other one reads from.
    assert f"process 0 of 2: torchrun, which started it (pid {process.pid}), ended" in errors
    assert all(line.endswith("--resume continues it") for line in lines)
    assert "frame #" not in errors, "no stack trace of torch"
