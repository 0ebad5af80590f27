"""Which other process is blamed, from what each has written down."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
import torch.distributed as dist

from minilm.parallel import process_group
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


def test_where_nothing_is_known_all_that_are_silent_are_named(
    ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_group, "NOTICE_SECONDS", 0.1)
    monkeypatch.setattr(process_group, "_pid_space", lambda: process_group.UNKNOWN)
    assert len(reported(ended, process_group.UNKNOWN).lost()) == 2
