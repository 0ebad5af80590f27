"""The messages of the logger "minilm": on stderr, above the progress bar, where nobody else takes them."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import textwrap
from collections.abc import Iterator

LOGGER = logging.getLogger("minilm")


class StderrHandler(logging.Handler):
    """Prints the message alone, and draws the progress bar again below it.

    On a terminal it is wrapped between words; a file has it in one line.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        from tqdm import tqdm

        text = self.format(record)
        if sys.stderr is not None and sys.stderr.isatty():
            columns = shutil.get_terminal_size().columns
            lines = (_wrapped(line, columns) for line in text.split("\n"))
            text = "\n".join(lines)
        tqdm.write(text, file=sys.stderr)


def _wrapped(line: str, columns: int) -> str:
    return textwrap.fill(line, columns, break_long_words=False, break_on_hyphens=False)


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
