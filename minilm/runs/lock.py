"""One process at a time in a run folder: a file lock of the operating system, which ends with its process.

The file says which process holds the lock, for the message to another one. A process that was killed
leaves the file behind, unlocked, and the next one takes it over.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from minilm.errors import FormatError, InputError
from minilm.formats.json_file import read_object
from minilm.runs import files as run_files

# What flock says of a lock that another process has, and of a file system that has no locks.
_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold the lock of a run folder within the block. Raises InputError where another process has it."""
    path = run_dir / run_files.LOCK
    descriptor = _open_locked(path)
    try:
        os.ftruncate(descriptor, 0)
        owner = {"pid": os.getpid(), "host": socket.gethostname()}
        os.write(descriptor, json.dumps(owner).encode())
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            path.unlink()  # before the lock ends: the next owner would lose its file
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    """The file of the lock, opened and locked until it is closed."""
    while True:
        descriptor = _open(path)
        try:
            _lock(descriptor)
            # The owner before may have removed the file after it was opened here.
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                logger.warning(
                    f"note: {path.parent} cannot be locked ({error.strerror}): start no second process in it"
                )
                return descriptor
            os.close(descriptor)
            if error.errno not in _HELD:
                raise
            raise InputError(
                path.parent,
                f"{_owner(path)} is training in it",
                "a run that no other process is working on",
                "wait for it, stop it, or choose another --run-dir",
            ) from None
        os.close(descriptor)


def _open(path: Path) -> int:
    """The file opened, or made. Raises InputError for a link, whose target would be emptied, and the like."""
    try:
        if not os.path.lexists(path) or stat.S_ISREG(path.lstat().st_mode):
            return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:  # it became a link meanwhile
            raise
    raise InputError(path, "not a regular file", "the lock of a run, or nothing", "remove it")


def _lock(descriptor: int) -> None:
    """Lock an open file, or raise OSError at once."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 2**20, os.SEEK_SET)  # a byte behind the text, which others may read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        try:
            import fcntl
        except ImportError:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)) from None
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _owner(path: Path) -> str:
    """The process that holds the lock, as far as its file says."""
    try:
        owner = read_object(path)
    except (FormatError, OSError):
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')}"
