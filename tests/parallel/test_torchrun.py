"""What the processes do when torchrun itself is killed, and one of four of them, whatever they are doing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
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


TRAIN = [str(ROOT / "scripts" / "train.py"), "--tokenizer=byte"]


def killed(
    layout: str,
    folder: Path,
    text: Path,
    rank_of_killed: int | None,
    processes: int = 4,
    doing: str = "trains",
) -> tuple[int, str]:
    """The process that was killed, torchrun or one that it started, and what all of them said."""
    run = folder / "run"
    if doing == "prepares":
        text = folder / "long.txt"
        text.write_text("What is encoded by its bytes. " * 10**6)
    settings = SETTINGS | ADAMW | {"parallel": layout, "max_steps": 1_000_000}
    options = [*command_line(ODD, settings), "--run-dir", str(run), "--data", str(text)]
    process = subprocess.Popen(
        torchrun(*TRAIN, *options, processes=processes),
        env=environment(folder / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ready: dict[str, Callable[[], bool]] = {
        "starts": lambda: len(workers_of(process)) == processes,
        "prepares": lambda: any((folder / "cache").glob("tokens/*/.train*")),
        "trains": lambda: (run / "metrics.jsonl").is_file(),
    }
    try:
        deadline = time.monotonic() + 120
        while not ready[doing]():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        workers = workers_of(process)
        assert len(workers) == processes
        pid = process.pid if rank_of_killed is None else workers[str(rank_of_killed)]
        os.kill(pid, signal.SIGKILL)
        # Four processes that import torch take long.
        deadline = time.monotonic() + (90 if doing == "starts" else 30)
        while any(rank(pid) for pid in workers.values()):
            assert time.monotonic() < deadline, "they go on"
            time.sleep(0.05)
        _, errors = process.communicate(timeout=60)
    finally:
        end(process)
    return pid, errors


def workers_of(process: subprocess.Popen[str]) -> dict[str, int]:
    """Those that torchrun has started, by rank."""
    return {rank(pid): pid for pid in children(process.pid) if rank(pid)}


@pytest.mark.parametrize(
    ("layout", "doing"),
    [("ddp", "starts"), ("ddp", "prepares"), ("ddp", "trains"), ("fsdp", "trains")],
)
def test_processes_whose_torchrun_was_killed_end_and_say_so(
    layout: str, doing: str, text_file: Path, tmp_path: Path
) -> None:
    pid, errors = killed(layout, tmp_path, text_file, None, doing=doing)
    said = [f"torchrun, which started it (pid {pid}), ended, expected all of them"]
    if doing == "starts":  # before a process could see who had started it
        said.append("torchrun does not answer (Connection refused), expected all of them")
    assert any(each in errors for each in said), errors
    assert "frame #" not in errors, "no stack trace of torch"


@pytest.mark.parametrize(
    ("layout", "doing", "rank_of_killed"),
    [("ddp", "trains", 2), ("fsdp", "trains", 2), ("ddp", "prepares", 0)],
)
def test_the_one_of_four_that_was_killed_is_named_alone(
    layout: str, doing: str, rank_of_killed: int, text_file: Path, tmp_path: Path
) -> None:
    pid, errors = killed(layout, tmp_path, text_file, rank_of_killed, doing=doing)
    (error,) = (line for line in errors.splitlines() if line.startswith("error: "))
    assert f": process {rank_of_killed} (pid {pid} on " in error
    assert error.count("(pid ") == 1


SLOW_AT_THE_END = """
import pathlib, sys, time
from minilm.cli.train import main
from minilm.parallel.process_group import world
from minilm.training.trainer import Trainer
evaluate_best = Trainer._evaluate_best
def slowly(self):
    if world().is_main:
        pathlib.Path("begun").touch()
        for _ in range(200):
            time.sleep(0.1)
    evaluate_best(self)
Trainer._evaluate_best = slowly
sys.exit(main(program="train.py"))
"""


def test_one_that_is_killed_at_the_end_is_named_before_it_is_missed(
    text_file: Path, tmp_path: Path
) -> None:
    """The other one computes for long in the last evaluation before it needs it."""
    script = tmp_path / "train.py"
    script.write_text(SLOW_AT_THE_END)
    settings = SETTINGS | {"parallel": "ddp", "max_steps": 2, "eval_every": 2, "eval_tokens": 100}
    options = [*command_line(ODD, settings), "--tokenizer=byte", "--data", str(text_file)]
    process = subprocess.Popen(
        torchrun(str(script), *options, "--run-dir", str(tmp_path / "run")),
        env=environment(tmp_path / "cache"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "begun").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        workers = workers_of(process)
        os.kill(workers["1"], signal.SIGKILL)
        began = time.monotonic()
        while rank(workers["0"]):
            assert time.monotonic() - began < 15, "it goes on"
            time.sleep(0.05)
        _, errors = process.communicate(timeout=60)
    finally:
        end(process)
    (error,) = (line for line in errors.splitlines() if line.startswith("error: "))
    assert f": process 1 (pid {workers['1']} on " in error


def test_a_signal_ends_a_process_that_waits_for_the_others(tmp_path: Path, text_file: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    process = subprocess.Popen(
        [sys.executable, *TRAIN, "--data", str(text_file), "--run-dir", str(tmp_path / "run")],
        env=environment(tmp_path / "cache") | variables | {"MASTER_PORT": str(port)},
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM
    finally:
        process.kill()


def test_all_stop_and_save_when_the_torchrun_of_another_machine_is_killed(
    tmp_path: Path, text_file: Path
) -> None:
    """The first one's has the store, so that nothing else tells that machine's processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = tmp_path / "run"
    settings = SETTINGS | ADAMW | {"parallel": "ddp", "max_steps": 1_000_000, "eval_every": 10**6}
    train = [*TRAIN, *command_line(ODD, settings), "--run-dir", str(run), "--data", str(text_file)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--rdzv-backend=c10d"]
    launcher += [f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=two"]
    machines = [
        subprocess.Popen(
            [*launcher, f"--rdzv-conf=is_host={is_host}", *train],
            env=environment(tmp_path / "cache"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for is_host in (1, 0)
    ]
    try:
        deadline = time.monotonic() + 120
        while not (run / "metrics.jsonl").is_file():
            assert all(machine.poll() is None for machine in machines)
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (orphan,) = workers_of(machines[1]).values()
        machines[1].kill()
        _, errors = machines[0].communicate(timeout=60)
        assert "error: " not in errors, "all of them stop after the same step"
        assert not rank(orphan)
        assert any((run / "resume").glob("step-*[1-9]*.safetensors"))
    finally:
        for machine in machines:
            end(machine)
            machine.communicate()
