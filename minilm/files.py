"""Atomic writes: to a temporary sibling that is then renamed over the file.

The order is write, fsync the file, rename, fsync the directory, so a crash at any instant leaves
either the complete older file or the complete newer one. Modes follow the umask. A symbolic link is
followed. A pipe, a device or a terminal is written into, never replaced; /dev/stdout is the open descriptor,
so that a file behind it is not truncated.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
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
        try:
            with _open_in_place(path) as stream:
                yield stream
        except OSError as error:
            raise (error_about(path, error) if error.filename is None else error) from None
        return
    target = resolved(path)
    try:
        # A sibling, because a rename is atomic within one file system; hidden from *.json patterns.
        name = str(target.parent / temporary_name(target.name))
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SYSTEM_FLAGS, 0o666)
    except OSError as error:
        raise error_about(path, error) from None
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
            raise error_about(path, error) from None
        raise


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A free path beside ``path`` for a new file or folder, which is renamed to it if the block succeeds.

    Otherwise it is removed. ``path`` may be a symbolic link to nothing yet.
    """
    target = resolved(path) if path.is_symlink() else path
    staging = target.parent / temporary_name(target.name)
    try:
        yield staging
        _sync(staging)
        os.replace(staging, target)
        sync_directory(target.parent)
    except OSError as error:
        # The temporary name is unknown to the user.
        name = str(error.filename)
        if not name.startswith(str(staging)):
            raise
        raise error_about(Path(f"{path}{name.removeprefix(str(staging))}"), error) from None
    finally:
        if staging.is_dir():
            shutil.rmtree(staging, ignore_errors=True)
        else:
            staging.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Make a finished file, or the names in a folder of such files, survive a power failure."""
    if path.is_dir():
        for folder in (path, *(each for each in path.rglob("*") if each.is_dir())):
            sync_directory(folder)
    else:
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())


def temporary_name(name: str) -> str:
    """A name of its own, each time another one, for what will become the file or folder ``name``."""
    return f".{name}.{os.urandom(4).hex()}.tmp"


def target_of_temporary(name: str) -> str | None:
    """The ``name`` that a `temporary_name` was made for; None for any other name."""
    match = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.tmp", name)
    return match[1] if match else None


def is_replaceable(path: Path) -> bool:
    """Whether a new file may take the place of what is at ``path``: of a regular file or of nothing."""
    # A name below /proc may be a file that a program holds open.
    parent = os.path.realpath(path.parent)
    if parent == "/dev" or parent.startswith("/proc/") or _own_descriptor(path) is not None:
        return False
    try:
        mode = path.stat().st_mode
    except OSError:
        return True  # nothing there; if the path is unusable, the write itself fails
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)  # the rename refuses a folder


# Windows translates line ends without the second; descriptors are never inherited there.
_SYSTEM_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def resolved(path: Path) -> Path:
    """Where symbolic links lead from ``path``, which need not exist. Raises OSError for a loop of them."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return target


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` atomically."""
    with atomic_writer(path) as stream:
        stream.write(data)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as indented JSON atomically. NaN and infinities are refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def error_about(path: Path, error: OSError) -> OSError:
    """The same error, naming ``path``: a full disk names no file, a temporary file is unknown to the user."""
    return OSError(error.errno, error.strerror, str(path))


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


def _open_in_place(path: Path) -> IO[bytes]:
    """What is at ``path``, to be written into: nothing is truncated."""
    descriptor = _own_descriptor(path)
    # Opened by its name, a file would get a second position, and two writers overwrite each other.
    return open(path, "ab") if descriptor is None else os.fdopen(os.dup(descriptor), "wb")


def _own_descriptor(path: Path) -> int | None:
    """The open descriptor of this process that ``path`` leads to, as /dev/stdout does; else None."""
    own_descriptors = re.compile(rf"/dev/fd|/proc/{os.getpid()}(/task/\d+)?/fd")
    for _ in range(40):  # as many links as Linux follows
        folder = os.path.realpath(path.parent)
        if path.name.isdecimal() and own_descriptors.fullmatch(folder):
            return int(path.name)
        if not path.is_symlink():
            break
        path = Path(folder, os.readlink(path))
    return None
