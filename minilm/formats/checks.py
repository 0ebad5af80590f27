"""What every reader asks of a foreign file before it believes a word or a number in it."""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypeGuard

from minilm.errors import FormatError
from minilm.safe_text import short_repr

LONGEST_NAME = 1024
MOST_DIMENSIONS = 64  # numpy's and torch's own limit

# What git leaves in place of a large file that was not downloaded.
GIT_LFS_POINTER = b"version https://git-lfs"


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The file at ``path`` and its size; a pipe or device is refused without waiting for it."""
    _require_regular(path, os.stat(path).st_mode)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as stream:
        status = os.fstat(stream.fileno())
        _require_regular(path, status.st_mode)  # it may be another file by now
        if stream.peek(len(GIT_LFS_POINTER)).startswith(GIT_LFS_POINTER):
            raise FormatError(path, "a Git LFS pointer", "the file itself", "run: git lfs pull")
        yield stream, status.st_size


def check_name(path: Path, name: object) -> str:
    """``name`` if it is a text that can be a tensor's name. Raises FormatError."""
    if not isinstance(name, str):
        raise FormatError(path, f"a tensor named {short_repr(name)}", "a text as a name")
    if len(name) > LONGEST_NAME:
        raise FormatError(
            path, f"tensor {short_repr(name)}", f"a name of at most {LONGEST_NAME} letters"
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        raise FormatError(path, f"tensor {short_repr(name)}", "a name that is Unicode") from None
    return name


def check_shape(path: Path, name: str, shape: Sequence[object]) -> tuple[int, ...]:
    """``shape`` if a tensor can have it: few dimensions, each and their product below 2**63."""
    if len(shape) > MOST_DIMENSIONS:
        raise FormatError(
            path,
            f"tensor {short_repr(name)} with {len(shape)} dimensions",
            f"at most {MOST_DIMENSIONS}",
        )
    sizes = []
    for size in shape:
        if not is_size(size):
            break
        sizes.append(size)
    if len(sizes) < len(shape) or math.prod(sizes) >= 2**63:
        raise FormatError(
            path,
            f"tensor {short_repr(name)} with shape {short_repr(shape)}",
            "whole numbers whose product is below 2**63",
        )
    return tuple(sizes)


def is_size(value: object) -> TypeGuard[int]:
    """Whether ``value`` is a whole number that a 64-bit file position can hold."""
    return type(value) is int and 0 <= value < 2**63


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    raise FormatError(path, kinds.get(stat.S_IFMT(mode), "a device"), "a file")


def check_same_tensors(
    path: Path, stored: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """Names and shapes of a file against those of its config.json. Raises FormatError for the first other."""
    for name in sorted(stored.keys() | wanted.keys()):
        came, expected = stored.get(name), wanted.get(name)
        if came != expected:
            raise FormatError(
                path,
                f"{name} {'absent' if came is None else list(came)}",
                "no such tensor" if expected is None else f"{name} {list(expected)}",
                "the weights are not those of this config.json",
            )
