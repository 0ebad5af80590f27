"""SIGINT and SIGTERM: at once while a run is being prepared, at the end of the step while it trains."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A signal ended the work. ``signum`` gives the exit status 128 + signum."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


class StopRequest:
    """Set by the first signal. While ``deferred`` the work looks at ``signum`` when it suits it."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.deferred = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        impatient = self.signum is not None
        self.signum = signum
        if impatient or not self.deferred:
            raise Stopped(signum)

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
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
