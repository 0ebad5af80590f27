"""A map over two processes, with results in order.

The standard library's pools leave their workers running when the parent is killed, and print tracebacks
on Ctrl-C and for a killed worker. Here each worker gets its share when it starts and sends results
through its own pipe, so that either side notices the death of the other.
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


def map_in_order(
    function: Callable[[Item], Result], work: Sequence[Item], sizes: Sequence[int], where: object
) -> Generator[Result, None, None]:
    """``map(function, work)`` by two processes, with the ``sizes`` balanced between them.

    A worker's InputError, OSError or MemoryError is raised here, and InputError about ``where`` if one
    was killed. The workers end with this generator, or with the process that runs it.
    """
    assignment = _assign_workers(sizes)
    shares = [
        [item for item, worker in zip(work, assignment, strict=True) if worker == n]
        for n in range(WORKERS)
    ]
    processes: list[BaseProcess] = []
    receivers: list[Connection[None, Result | Exception]] = []
    try:
        for share in shares:
            process, receiver = _start_worker(function, share)
            processes.append(process)
            receivers.append(receiver)
        for worker in assignment:
            yield _receive(receivers[worker], processes[worker], where)
    finally:
        for process in processes:
            process.kill()  # not SIGTERM, whose handler they may have inherited; they only read
            process.join()
        for receiver in receivers:
            receiver.close()


def can_have_children() -> bool:
    """Whether this process may start others: daemons of `multiprocessing` may not."""
    return not multiprocessing.current_process().daemon


def _assign_workers(sizes: Sequence[int]) -> list[int]:
    """A worker for each item: the one with the least so far, so that both keep pace."""
    loads = [0] * WORKERS
    assignment = []
    for size in sizes:
        worker = loads.index(min(loads))
        loads[worker] += size
        assignment.append(worker)
    return assignment


def _start_worker(
    function: Callable[[Item], Result], share: Sequence[Item]
) -> tuple[BaseProcess, Connection[None, Result | Exception]]:
    # A fork has all modules imported already; a spawned process imports them again.
    fork_is_safe = sys.platform == "linux" and threading.active_count() == 1
    context = get_context("fork") if fork_is_safe else get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_run_worker, args=(function, share, sender, receiver), daemon=True
    )
    with warnings.catch_warnings(), _interrupts_blocked():
        # Python 3.12 warns of forking with threads: BLAS has idle ones, which the child does not use.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sender.close()  # the child's copy is then the only one: its death ends the pipe
    return process, receiver


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """A child started here inherits that Ctrl-C is blocked: only the parent handles it."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_worker(
    function: Callable[[Item], Result],
    share: Sequence[Item],
    sender: Connection[Result | Exception, None],
    receiver: Connection[None, Result | Exception],
) -> None:
    """A worker's main function. A broken pipe means that the parent is gone."""
    receiver.close()  # the fork's copy
    with suppress(BrokenPipeError):
        for item in share:
            try:
                result = function(item)
            except (InputError, OSError, MemoryError) as error:
                sender.send(error)
                return
            sender.send(result)


def _receive(
    receiver: Connection[None, Result | Exception], process: BaseProcess, where: object
) -> Result:
    try:
        result = receiver.recv()
    except (EOFError, ConnectionError):
        process.join()
        if process.exitcode == 1:  # a bug: its traceback is printed
            raise RuntimeError("a worker process failed") from None
        raise InputError(
            where,
            "a process that read the values was killed",
            "it to finish",
            "memory may have run out: close other programs and try again",
        ) from None
    if isinstance(result, Exception):
        raise result
    return result
