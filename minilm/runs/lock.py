"""One process at a time in a run folder: a file lock of the operating system, which ends with its process.

The file says which process holds the lock, for the message to another one. A process that was killed
leaves the file behind, unlocked, and the next one takes it over.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from minilm.errors import FormatError, InputError
from minilm.formats.json_file import read_object
from minilm.runs import files as run_files

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold the lock of a run folder within the block. Raises InputError where another process has it."""
    import filelock

    path = run_dir / run_files.LOCK
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(
            run_dir,
            f"{_owner(path)} is training in it",
            "a run that no other process is working on",
            "wait for it, stop it, or choose another --run-dir",
        ) from None
    except NotImplementedError:
        logger.warning(
            f"note: the file system of {run_dir} has no locks: start no second process in this folder"
        )
        yield
        return
    try:
        with contextlib.suppress(OSError):  # Windows: a locked file is written by its lock alone
            path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held: whoever waits for it looks whether it is still there
        lock.release()


def _owner(path: Path) -> str:
    """The process that holds the lock, as far as its file says."""
    try:
        owner = read_object(path)
    except (FormatError, OSError):
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')}"
