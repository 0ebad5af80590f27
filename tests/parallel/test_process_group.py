"""Which other process is blamed, from what each has written down."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
import torch.distributed as dist

from minilm.errors import InputError
from minilm.parallel import joining, process_group
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
