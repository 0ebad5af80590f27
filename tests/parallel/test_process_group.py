"""What processes agree on before they compute: a prefix, turns, and who is blamed for what fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from minilm.cli import entry
from minilm.errors import InputError
from minilm.parallel import joining, launcher, process_group
from minilm.parallel.joining import agreed_prefix
from minilm.parallel.process_group import World


@pytest.fixture
def ended() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def reported(pid: int, space: str) -> World:
    """Of three processes that have not noticed a failure, two with that number: rank 1 elsewhere."""
    store = dist.HashStore()
    for rank, each in ((1, space), (2, process_group._pid_space())):
        store.set(f"step/{rank}", f"9 {socket.gethostname()} {pid} {each}")
    return World(rank=0, size=3, store=store)


@pytest.mark.skipif(
    process_group._pid_space() == process_group.UNKNOWN, reason="the system does not tell"
)
@pytest.mark.parametrize("space", ["another", process_group.UNKNOWN])
def test_a_process_of_another_container_with_this_host_name_is_not_known_to_have_ended(
    space: str, ended: int
) -> None:
    (text,) = reported(ended, space).lost()
    assert text.startswith(f"process 2 (pid {ended} on {socket.gethostname()}, in step 9)")


def test_who_ends_by_itself_is_not_called_killed(ended: int) -> None:
    world = reported(ended, "another")
    assert world.killed()
    world.store.set("noticed/2", "")
    assert not world.killed()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "b"}, "WORLD_SIZE: 'b', expected a whole number from 1 to 1048576"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE: '0', expected a whole number from 1"),
        ({"RANK": "2"}, "RANK: '2', expected a whole number from 0 to 1, as torchrun sets it"),
        ({"RANK": "-1"}, "RANK: '-1', expected"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK: 'x', expected"),
        ({"LOCAL_WORLD_SIZE": "3"}, "LOCAL_WORLD_SIZE: '3', expected a whole number from 1 to 2"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT: '99999', expected a whole number from 0 to 65535"),
        (
            {"RANK": "0"},
            "process 0 of 2: 127.0.0.1:PORT: .*1/2 clients joined.*expected all of them",
        ),
        (
            {"TORCHELASTIC_USE_AGENT_STORE": "True"},
            "process 1 of 2: 127.0.0.1:PORT: torchrun does not answer",
        ),
    ],
)
def test_what_cannot_be_joined_is_one_line(
    variables: dict[str, str], message: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(joining, "ANSWER_SECONDS", 0.1)
    own = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MINILM_PROCESS_TIMEOUT": "1"}
    own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port)}
    for name, value in (own | variables).items():
        monkeypatch.setenv(name, value)
    pattern = message.replace("PORT: ", f"{free_port}: ") if "process" in message else message
    with pytest.raises(InputError, match=pattern), process_group.process_group():
        pass
    assert not process_group.world().is_parallel


def test_where_nothing_is_known_all_that_are_silent_are_named(
    ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_group, "NOTICE_SECONDS", 0.1)
    monkeypatch.setattr(process_group, "_pid_space", lambda: process_group.UNKNOWN)
    assert len(reported(ended, process_group.UNKNOWN).lost()) == 2


def in_threads(work: Callable[[int], Any], count: int) -> list[Any]:
    """What ``work`` of each number returns; none may take longer than half a minute."""
    results: list[Any] = [None] * count

    def run(number: int) -> None:
        results[number] = work(number)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return results


def test_a_prefix_is_agreed_on_beside_what_processes_before_these_left() -> None:
    store, timeout = dist.HashStore(), timedelta(seconds=20)
    prefixes = set()
    for _ in range(3):  # the store of an agent outlives its processes
        each = in_threads(lambda rank: agreed_prefix(store, rank, 3, timeout), 3)
        assert len(set(each)) == 1
        prefixes.add(each[0])
    assert len(prefixes) == 3
    with pytest.raises(RuntimeError, match="process 1 does not answer"):
        agreed_prefix(dist.HashStore(), 0, 2, timedelta(seconds=0.1))


def of_two_machines() -> list[World]:
    store = dist.HashStore()
    return [World(rank, 4, store, local_rank=rank % 2) for rank in range(4)]


def test_what_one_prepares_is_prepared_once_a_machine_and_awaited_by_all() -> None:
    worlds, began, ended, left = of_two_machines(), {}, {}, {}

    def work(rank: int) -> None:
        with worlds[rank].main_first():
            began[rank] = time.monotonic()
            time.sleep(0.2)
            ended[rank] = time.monotonic()
        left[rank] = time.monotonic()

    in_threads(work, 4)
    assert ended[0] <= began[2]
    assert ended[2] <= min(began[1], began[3])
    assert max(ended.values()) <= min(left.values())


def test_what_fails_in_all_fails_in_each_and_they_go_on_together() -> None:
    worlds = of_two_machines()

    def work(rank: int) -> str:
        try:
            with worlds[rank].main_first():
                raise InputError("text", "no such file", "one")
        except InputError as error:
            worlds[rank].wait()
            return str(error)

    assert in_threads(work, 4) == ["text: no such file, expected one"] * 4


def test_a_killed_process_is_not_waited_for(ended: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "NOTICE_SECONDS", 0.1)
    with pytest.raises(dist.DistError):
        reported(ended, "another").wait()


def test_a_signal_after_an_error_hides_it_neither_in_the_group_nor_in_the_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def command() -> int:
        try:
            with process_group.process_group():
                raise InputError("text", "no such file", "one")
        finally:
            terminate()

    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(process_group, "started_by_torchrun", lambda: True)
    for module in (process_group, entry):
        monkeypatch.setattr(module, "silence_all_but_first", lambda: None)
    monkeypatch.setattr(process_group, "_joined", lambda timeout: World(store=dist.HashStore()))
    monkeypatch.setattr(dist, "destroy_process_group", terminate)
    before = signal.getsignal(signal.SIGTERM)
    assert before == signal.SIG_DFL, "as a command is started with"
    try:
        assert entry.run_command(command) == entry.BAD_INPUT
        terminate()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capfd.readouterr().err == "error: text: no such file, expected one\n"


@pytest.mark.skipif(launcher.process_age(os.getpid()) is None, reason="the system does not tell")
def test_a_run_that_was_there_before_torchrun_is_not_of_its_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.json"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    assert not launcher.is_of_this_launch(config), "no file"
    config.write_text("{}")
    assert launcher.is_of_this_launch(config)
    age = launcher.process_age(launcher.LAUNCHER)
    assert age is not None
    os.utime(config, (0, time.time() - age - 1))
    assert not launcher.is_of_this_launch(config)
    config.write_text("{}")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert not launcher.is_of_this_launch(config), "no torchrun"
