"""Atomic writes: to a temporary sibling that is then renamed over the file.

The order is write, fsync the file, rename, fsync the directory, so a crash at any instant leaves
either the complete older file or the complete newer one. Modes follow the umask. A symbolic link is
followed. A pipe, a device or a terminal is written into, never replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary stream that becomes ``path`` when the block succeeds and is removed otherwise.

    A pipe or device is opened and written into instead. Raises OSError (full disk, no permission); a
    regular file at ``path`` is then unchanged.
    """
    if not is_replaceable(path):
        with open(path, "wb") as stream:
            yield stream
        return
    target = Path(os.path.realpath(path))
    try:
        # A sibling, because a rename is atomic within one file system; hidden from *.json patterns.
        name = str(target.parent / temporary_name(target.name))
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SYSTEM_FLAGS, 0o666)
    except OSError as error:
        raise _error_about(path, error) from None
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        sync_directory(target.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # A full disk names no file, other errors name the temporary one.
        if isinstance(error, OSError) and error.filename in (None, name):
            raise _error_about(path, error) from None
        raise


def temporary_name(name: str) -> str:
    """A name of its own, each time another one, for what will become the file or folder ``name``."""
    return f".{name}.{os.urandom(4).hex()}.tmp"


def target_of_temporary(name: str) -> str | None:
    """The ``name`` that a `temporary_name` was made for; None for any other name."""
    match = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.tmp", name)
    return match[1] if match else None


def is_replaceable(path: Path) -> bool:
    """Whether a new file may take the place of what is at ``path``: of a regular file or of nothing."""
    # /dev/stdout leads through /proc to a file that another program holds open.
    parent = os.path.realpath(path.parent)
    if parent == "/dev" or parent.startswith("/proc/"):
        return False
    try:
        mode = path.stat().st_mode
    except OSError:
        return True  # nothing there; if the path is unusable, the write itself fails
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)  # the rename refuses a folder


# Windows translates line ends without the second; descriptors are never inherited there.
_SYSTEM_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` atomically."""
    with atomic_writer(path) as stream:
        stream.write(data)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as indented JSON atomically. NaN and infinities are refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def sync_directory(path: Path) -> None:
    """Make renames within a directory survive a power failure, where directories can be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens none
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _error_about(path: Path, error: OSError) -> OSError:
    """The same error, naming the requested file instead of its temporary sibling."""
    return OSError(error.errno, error.strerror, str(path))
