"""Lines from a user, one after another, and what answers them."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable

from minilm.cli.entry import DONE
from minilm.errors import TokenizerError


def interact(answer: Callable[[str], None], *, is_end: Callable[[str], bool]) -> int:
    """Line and answer in turn, until the end of input or a line that ``is_end``.

    Ctrl-C ends an answer, and where none is given the command.
    """
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):
        # A byte that is not UTF-8 spoils its line, not all that was read with it.
        sys.stdin.reconfigure(errors="surrogateescape")
    if terminal:
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  lines can be edited and recalled
    while True:
        try:
            line = input("> " if terminal else "") if sys.stdin is not None else ""
        except EOFError:
            return DONE
        if sys.stdin is None or is_end(line):
            return DONE
        try:
            answer(line)
        except TokenizerError as error:  # this text has no tokens; the next may
            print(f"error: {error}", file=sys.stderr)
        except KeyboardInterrupt as interrupt:
            if getattr(interrupt, "signum", None):
                raise
