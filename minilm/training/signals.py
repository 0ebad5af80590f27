"""SIGINT and SIGTERM: at once while a run is being prepared, at the end of the step while it trains."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

# Wrappers and terminals may deliver a signal twice; a person who presses again waits longer.
SECOND_SIGNAL_AFTER_SECONDS = 1.0


class Stopped(KeyboardInterrupt):
    """A signal ended the work. ``signum`` gives the exit status 128 + signum."""

    def __init__(self, signum: int, note: str) -> None:
        super().__init__(note)
        self.signum = signum


class StopRequest:
    """Set by a signal. While ``deferred`` the work looks at ``signum`` at the end of its step.

    ``saved``: whether there is a state to resume from, for the message.
    """

    def __init__(self) -> None:
        self.saved = False
        self.signum: int | None = None
        self.deferred = False
        self._since = 0.0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if not self.deferred:
            note = "stopped: the run is as it was last saved"
            if not self.saved:
                note = "stopped before training began: nothing was saved"
            raise Stopped(signum, note)
        now = time.monotonic()
        if self.signum is None:
            self.signum, self._since = signum, now
        elif now - self._since > SECOND_SIGNAL_AFTER_SECONDS:
            raise Stopped(signum, "stopped at once: the run is as it was last saved")

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """Within the block a first signal is only noted; a second one still interrupts."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False


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
