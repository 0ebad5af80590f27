"""Two processes that read: results in order, errors as one line, and nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from minilm.errors import FormatError, InputError
from minilm.values.workers import map_in_order

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are read from /proc")


def square(number: int) -> int:
    if number == 13:
        raise FormatError("x.bin", "13", "another number")
    if number == 15:
        raise KeyError(number)
    if number == 14:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(number % 3 / 1000)
    return number * number


def process_of(_: int) -> int:
    return os.getpid()


def squares(numbers: list[int]) -> list[int]:
    return list(map_in_order(square, numbers, numbers, "numbers"))


def test_results_come_in_the_order_of_the_work() -> None:
    numbers = [1, 9, 1, 1, 12, 3, 0, 5, 7, 2] * 20
    assert squares(numbers) == [n * n for n in numbers]
    assert squares([]) == []


def test_two_processes_share_the_sizes() -> None:
    """Every other item is small, as biases are: taking turns would leave one process all the work."""
    sizes = [100, 1] * 50
    owners = list(map_in_order(process_of, sizes, sizes, "numbers"))
    assert len(set(owners)) == 2
    assert os.getpid() not in owners
    of_first = sum(size for size, owner in zip(sizes, owners, strict=True) if owner == owners[0])
    assert 0.45 < of_first / sum(sizes) < 0.55


def test_a_workers_error_is_raised_in_the_parent() -> None:
    with pytest.raises(FormatError, match=r"^x\.bin: 13, expected another number$") as caught:
        squares([1, 2, 3, 13, 5])
    assert caught.value.got == "13"


def test_a_killed_process_is_one_error() -> None:
    with pytest.raises(InputError, match="numbers: a process that read the values was killed"):
        squares([1, 2, 14, 3, 4, 5])


def test_a_bug_in_a_worker_is_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match="a worker process failed"):
        squares([1, 15, 2])


PARENT = """
import os, sys, time
from minilm.values.workers import map_in_order

def slow(number):
    time.sleep(0.02)
    return os.getpid()

numbers = [1] * 10000
for pid in map_in_order(slow, numbers, numbers, "numbers"):
    print(pid, flush=True)
"""


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()[:300]
    except OSError:
        return False


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_when_the_parent_ends_its_processes_end(number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    try:
        children = {int(parent.stdout.readline()) for _ in range(4)}
        assert len(children) == 2
        if number == signal.SIGINT:  # a terminal sends it to all of them: only the parent answers
            for child in children:
                os.kill(child, number)
            assert {int(parent.stdout.readline()) for _ in range(20)} == children
        os.kill(parent.pid, number)
        errors = parent.communicate(timeout=10)[1]  # they hold its stdout and stderr
        assert errors.count("Traceback") == (number == signal.SIGINT)  # the parent's own
        deadline = time.monotonic() + 10
        while any(map(alive, children)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(map(alive, children))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
