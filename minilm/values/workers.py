"""Work done by two processes, its results in the order of the work.

A pool of the standard library leaves its processes behind when it is killed, and answers Ctrl-C and a
killed worker with tracebacks. Here each process is sent its share when it starts and writes into a
pipe of its own: when either end of it dies, the other one notices.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar

from minilm.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = 2


def in_order(
    function: Callable[[Item], Result], work: Sequence[Item], sizes: Sequence[int], where: object
) -> Generator[Result, None, None]:
    """``map(function, work)`` by two processes that share the ``sizes`` evenly.

    What a user can cause is raised here as it is raised there, and InputError about ``where`` when
    one was killed. They end with this generator, and with the process that runs it.
    """
    owners = _owners(sizes)
    shares = [
        [x for x, owner in zip(work, owners, strict=True) if owner == n] for n in range(WORKERS)
    ]
    processes: list[BaseProcess] = []
    receivers: list[Connection[None, Result | Exception]] = []
    try:
        for share in shares:
            process, receiver = _start(function, share)
            processes.append(process)
            receivers.append(receiver)
        for owner in owners:
            yield _received(receivers[owner], processes[owner], where)
    finally:
        for process in processes:
            process.kill()  # they only read, and may have inherited a handler of SIGTERM
            process.join()
        for receiver in receivers:
            receiver.close()


def can_share() -> bool:
    """Whether this process may have children: those of `multiprocessing` may not."""
    return not multiprocessing.current_process().daemon


def _owners(sizes: Sequence[int]) -> list[int]:
    """Which process does what: whoever has least so far, so that both are at the same place."""
    given = [0] * WORKERS
    owners = []
    for size in sizes:
        owner = given.index(min(given))
        given[owner] += size
        owners.append(owner)
    return owners


def _start(
    function: Callable[[Item], Result], share: Sequence[Item]
) -> tuple[BaseProcess, Connection[None, Result | Exception]]:
    # A fork has everything imported already; where it is not safe, a fresh process imports it again.
    fork_is_safe = sys.platform == "linux" and threading.active_count() == 1
    context = get_context("fork") if fork_is_safe else get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(function, share, sender, receiver), daemon=True)
    with warnings.catch_warnings(), _interrupts_blocked():
        # Python 3.12 warns of BLAS's idle threads: a child that counts does not call BLAS.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sender.close()  # the child's is the only one: its death is the end of the pipe
    return process, receiver


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """A child starts with Ctrl-C blocked and stays so: the parent alone answers it."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(
    function: Callable[[Item], Result],
    share: Sequence[Item],
    sender: Connection[Result | Exception, None],
    receiver: Connection[None, Result | Exception],
) -> None:
    """The whole life of a process. A pipe that nobody reads any more means that the parent is gone."""
    receiver.close()  # a fork's copy
    with suppress(BrokenPipeError):
        for item in share:
            try:
                result = function(item)
            except (InputError, OSError, MemoryError) as error:
                sender.send(error)
                return
            sender.send(result)


def _received(
    receiver: Connection[None, Result | Exception], process: BaseProcess, where: object
) -> Result:
    try:
        result = receiver.recv()
    except (EOFError, ConnectionError):
        process.join()
        if process.exitcode == 1:  # a bug: its traceback is printed
            raise RuntimeError("a process that reads failed") from None
        raise InputError(
            where,
            "a process that read the values was killed",
            "to read them to their end",
            "memory may have run out: close other programs and try again",
        ) from None
    if isinstance(result, Exception):
        raise result
    return result
