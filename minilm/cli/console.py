"""The console for results: as wide as they need, and silent when the reader of a pipe has left."""

from __future__ import annotations

import os
import sys

from rich.console import Console

WIDTH = 100


class ResultConsole(Console):
    """rich's console, which would end the program itself when a pipe is closed; `run_command` does that."""

    def __init__(self) -> None:
        super().__init__(highlight=False, width=None if sys.stdout.isatty() else _columns())

    def on_broken_pipe(self) -> None:
        """Pass the BrokenPipeError on instead of exiting with 1."""
        raise  # rich calls this while it handles the error


def _columns() -> int:
    """A file or a pipe has no width of its own; tables must not be cut to 80 columns there."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and 0 < int(columns[:5]) < 10_000 else WIDTH
