"""Locks between processes: open transactions of SQLite, which end with their process."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from minilm.errors import InputError

LOCK_SECONDS = 600.0  # to wait for the study: another process is drawing a trial, or writing a loss


@contextlib.contextmanager
def exclusive(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock ``path`` within the block: no other process, and no other connection here, does.

    Raises InputError where it is not free for so many seconds.
    """
    connection = sqlite3.connect(path, timeout=wait, isolation_level=None)
    try:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            problem = f"cannot be locked: {error}"
            raise InputError(path, problem, "a lock that others hold for moments") from None
        yield
    finally:
        connection.close()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock ``path``."""
    if not path.exists():
        return False
    try:
        with exclusive(path):
            return False
    except InputError:
        return True
