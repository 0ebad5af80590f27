"""The messages of the logger "minilm": on stderr, above the progress bar, where nobody else takes them."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

LOGGER = logging.getLogger("minilm")


class StderrHandler(logging.Handler):
    """Prints the message alone, and draws the progress bar again below it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


@contextlib.contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Print messages of level INFO and above on stderr within the block."""
    handler, level = StderrHandler(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)


def messages_shown() -> contextlib.AbstractContextManager[None]:
    """As `messages_on_stderr`, unless logging was configured: then messages go where that says."""
    return contextlib.nullcontext() if LOGGER.hasHandlers() else messages_on_stderr()
