"""SIGINT and SIGTERM: at once while a run is being prepared, between two batches while it trains."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from minilm.parallel.joining import watching
from minilm.parallel.process_group import world

logger = logging.getLogger(__name__)

# Wrappers and terminals may deliver a signal twice; a person who presses again waits longer.
SECOND_SIGNAL_AFTER_SECONDS = 1.0


class Stopped(KeyboardInterrupt):
    """A signal ended the work. ``signum`` gives the exit status 128 + signum."""

    def __init__(self, signum: int, note: str) -> None:
        super().__init__(note)
        self.signum = signum


class Interrupted(KeyboardInterrupt):
    """A signal came within a step or an evaluation, which is as if it had not begun."""


class StopRequest:
    """Set by a signal. While ``deferred`` the work looks at ``signum`` after each of its batches.

    ``saved``: whether there is a state to resume from, for the message. ``shared``: one of several processes,
    which get a signal at different times: it is ``received`` here, and ``signum`` once all know of it.
    """

    def __init__(self) -> None:
        self.saved = False
        self.signum: int | None = None
        self.received: int | None = None
        self.shared = False
        self.deferred = False
        self.interrupts_step = False
        self._since = 0.0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if not self.deferred:
            note = "stopped: the run is as it was last saved"
            if not self.saved:
                note = "stopped before training began: nothing was saved"
            raise Stopped(signum, note)
        now = time.monotonic()
        if self.received is None:
            self.received, self._since = signum, now
            _announce(signum)
            if self.shared:
                return
            self.signum = signum
            if self.interrupts_step:
                raise Interrupted
        elif now - self._since > SECOND_SIGNAL_AFTER_SECONDS:
            raise Stopped(signum, "stopped at once: the run is as it was last saved")

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """Within the block a first signal is only noted; a second one still interrupts.

        And so does the first, after as long, where torchrun sent it because another process was killed: what
        this one is doing is in vain, and may take long before it needs that one.
        """
        self.deferred = True
        with (
            watching(self._is_old, self._repeat_in_vain)
            if self.shared
            else contextlib.nullcontext()
        ):
            try:
                yield
            finally:
                self.deferred = False

    def _is_old(self) -> bool:
        age = time.monotonic() - self._since
        return self.received is not None and age > SECOND_SIGNAL_AFTER_SECONDS

    def _repeat_in_vain(self) -> None:
        if self.received is not None and world().killed():
            os.kill(os.getpid(), self.received)

    @contextlib.contextmanager
    def interrupting_step(self) -> Iterator[None]:
        """Within the block, which may compile for minutes, a first signal raises Interrupted."""
        self.raise_if_set()
        self.interrupts_step = True
        try:
            yield
        finally:
            self.interrupts_step = False

    def raise_if_set(self) -> None:
        """Raise Interrupted where a signal came."""
        if self.signum is not None:
            raise Interrupted


def _announce(signum: int) -> None:
    """At once: what is going on may take a while longer."""
    name = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
    text = (
        f"{name}: stopping, and saving the run; a second one leaves now, with the run as last saved"
    )
    try:
        logger.warning(text)
    except (
        RuntimeError
    ):  # the signal came while stderr was being written, which cannot be entered twice
        os.write(2, f"{text}\n".encode())


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Listen to SIGINT and SIGTERM within the block; the handlers are put back after it."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python delivers signals to the main thread only
        return
    before = {
        number: signal.signal(number, request)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup and background jobs
    }
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
