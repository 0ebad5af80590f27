"""Files that are whole or absent: every write goes to a temporary sibling and is renamed over.

The order is write, fsync the file, rename, fsync the directory, so a crash at any instant leaves
either the complete older file or the complete newer one. Modes follow the umask. A symbolic link is
followed; what is no regular file (a pipe, a device, a terminal) is written into, never replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary stream that becomes ``path`` when the block ends well, and vanishes otherwise.

    What is no regular file is opened and written into instead. Raises OSError as the file system gives
    it (full disk, no permission); a regular file at ``path`` is then untouched.
    """
    if not _is_replaceable(path):
        with open(path, "wb") as stream:
            yield stream
        return
    target = Path(os.path.realpath(path))
    try:
        # A hidden sibling: the same file system, so that the rename is atomic, and no *.json pattern.
        name = str(target.parent / f".{target.name}.{os.urandom(4).hex()}.tmp")
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _of(path, error) from None
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
        # A full disk names no file, the others the temporary one.
        if isinstance(error, OSError) and error.filename in (None, name):
            raise _of(path, error) from None
        raise


def _is_replaceable(path: Path) -> bool:
    """Whether a new file may take the place of what is at ``path``: of a regular file or of nothing."""
    # /dev/stdout leads through /proc to a file that another program holds open.
    parent = os.path.realpath(path.parent)
    if parent == "/dev" or parent.startswith("/proc/"):
        return False
    try:
        mode = path.stat().st_mode
    except OSError:
        return True  # nothing there, or a link to nothing; what else is wrong the writing will say
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)  # a folder is refused by the rename


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` atomically."""
    with atomic_writer(path) as stream:
        stream.write(data)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as indented JSON atomically. NaN and infinities are refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def sync_directory(path: Path) -> None:
    """Make the renames done in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _of(path: Path, error: OSError) -> OSError:
    """The same failure, of the file that was asked for instead of its temporary sibling."""
    return OSError(error.errno, error.strerror, str(path))
