"""Joining the processes that torchrun has started, and noticing that it is gone where nothing else would."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from torch.distributed.rendezvous import rendezvous

from minilm.errors import InputError
from minilm.parallel.launcher import LAUNCHER, agent_has_the_store

# For the store of a torchrun that has started this process: it was there before.
ANSWER_SECONDS = 10.0
POLL_SECONDS = 0.25


@contextlib.contextmanager
def joining(rank: int, size: int, timeout: timedelta) -> Iterator[None]:
    """Around torch's calls that find the others. No Python handler of a signal runs within them.

    So a signal ends the process at once, and so does the end of torchrun, or a wait that is longer than
    ``timeout``. Raises InputError where torch fails.
    """
    where = f"process {rank} of {size}"

    def give_up(reason: str) -> None:
        error = lost(where, reason, "nothing has begun")
        print(f"error: {error}", file=sys.__stderr__, flush=True)
        os._exit(2)

    def too_late() -> None:
        give_up(f"{_store_address()}, where the others meet, or one of them, does not answer")

    watches = (
        (launcher_ended, lambda: give_up(launcher_text() + " ended")),
        _after(timeout, too_late),
    )
    with _signals_end_at_once(), contextlib.ExitStack() as stack:
        for condition, action in watches:
            stack.enter_context(watching(condition, action))
        try:
            yield
        except (RuntimeError, ValueError) as error:
            sys.stderr = sys.__stderr__
            reason = (str(error).strip().splitlines() or ["no answer"])[0]
            raise lost(where, f"{_store_address()}: {reason}", "nothing has begun") from None


def store_of_all(timeout: timedelta) -> tuple[Any, int, int]:
    """torch's store, the rank and the number of processes. Raises RuntimeError where no store answers."""
    if agent_has_the_store():
        _wait_for_store()
    joined: tuple[Any, int, int] = next(iter(rendezvous("env://", timeout=timeout)))
    return joined


def agreed_prefix(store: Any, rank: int, size: int, timeout: timedelta) -> str:
    """A new prefix for what these processes share, the same in all, where others may have used the store.

    Not torchrun's count of its restarts, which is not the same on all machines: one that starts its processes
    again because another machine's failed does not count that. Raises RuntimeError where one is missing.
    """
    own = uuid.uuid4().hex
    if rank != 0:
        store.set(f"hello/{rank}", own)
        store.wait([f"prefix/{own}"], timeout)
        prefix: str = store.get(f"prefix/{own}").decode()
        store.set(f"{prefix}/hello/{rank}", "")
        return prefix
    missing, deadline = set(range(1, size)), time.monotonic() + timeout.total_seconds()
    while missing:
        if time.monotonic() > deadline:
            raise RuntimeError(f"process {min(missing)} does not answer")
        for other in sorted(missing):
            # Perhaps that of a process before it: asked until the new one has said that it knows.
            if store.check([f"hello/{other}"]):
                store.set(f"prefix/{store.get(f'hello/{other}').decode()}", own)
            if store.check([f"{own}/hello/{other}"]):
                missing.discard(other)
        time.sleep(0.01)
    return own


@contextlib.contextmanager
def watching(condition: Callable[[], bool], action: Callable[[], None]) -> Iterator[None]:
    """Call ``action`` in a thread as soon as ``condition`` holds, until the block is over."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL_SECONDS):
            if condition():
                action()
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def launcher_ended() -> bool:
    """Whether torchrun did: another process becomes the parent of this one then.

    A process that something else has started, by torchrun's variables, may outlive that.
    """
    return "TORCHELASTIC_RUN_ID" in os.environ and os.getppid() != LAUNCHER


def launcher_text() -> str:
    return f"torchrun, which started it (pid {LAUNCHER}),"


def lost(where: str, what: str, state: str) -> InputError:
    """The error of a process that other processes are missing to; ``state`` says what of the run there is."""
    return InputError(where, what, "all of them", state)


def _wait_for_store() -> None:
    """torch would try for as long as a step may take."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"torchrun does not answer ({error.strerror or error})"
                ) from None
        time.sleep(POLL_SECONDS)


def _store_address() -> str:
    return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"


def _after(
    timeout: timedelta, action: Callable[[], None]
) -> tuple[Callable[[], bool], Callable[[], None]]:
    # torch keeps to the time-out in most calls, and says more.
    deadline = time.monotonic() + timeout.total_seconds() + 20
    return (lambda: time.monotonic() > deadline), action


@contextlib.contextmanager
def _signals_end_at_once() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
