"""Checks that every reader applies to untrusted files, names, shapes and sizes."""

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

MAX_NAME_LENGTH = 1024
MAX_DIMENSIONS = 64  # numpy's and torch's own limit

# Git leaves a pointer in place of a large file that was not downloaded.
GIT_LFS_POINTER = b"version https://git-lfs"


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file; yields the stream and its size. A pipe or device is refused unopened."""
    _require_regular(path, os.stat(path).st_mode)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as stream:
        status = os.fstat(stream.fileno())
        _require_regular(path, status.st_mode)  # it may have been replaced since
        if stream.peek(len(GIT_LFS_POINTER)).startswith(GIT_LFS_POINTER):
            raise FormatError(path, "a Git LFS pointer", "the file itself", "run: git lfs pull")
        yield stream, status.st_size


def check_name(path: Path, name: object) -> str:
    """``name`` if it can be a tensor's name. Raises FormatError."""
    if not isinstance(name, str):
        raise FormatError(path, f"a tensor named {short_repr(name)}", "a string as its name")
    if len(name) > MAX_NAME_LENGTH:
        raise FormatError(
            path, f"tensor {short_repr(name)}", f"a name of at most {MAX_NAME_LENGTH} characters"
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        raise FormatError(path, f"tensor {short_repr(name)}", "a name in valid Unicode") from None
    return name


def check_shape(path: Path, name: str, shape: Sequence[object]) -> tuple[int, ...]:
    """``shape`` if a tensor can have it: a few dimensions, whose product is below 2**63.

    A zero among them is left out of the product, as in numpy and safetensors. Raises FormatError.
    """
    if len(shape) > MAX_DIMENSIONS:
        raise FormatError(
            path,
            f"tensor {short_repr(name)} with {len(shape)} dimensions",
            f"at most {MAX_DIMENSIONS}",
        )
    sizes = []
    for size in shape:
        if not is_size(size):
            break
        sizes.append(size)
    if len(sizes) < len(shape) or math.prod(size or 1 for size in sizes) >= 2**63:
        raise FormatError(
            path,
            f"tensor {short_repr(name)} with shape {short_repr(shape)}",
            "whole numbers whose product is below 2**63",
        )
    return tuple(sizes)


def is_size(value: object) -> TypeGuard[int]:
    """Whether ``value`` is a whole number that fits a 64-bit file offset."""
    return type(value) is int and 0 <= value < 2**63


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    file_types = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    raise FormatError(path, file_types.get(stat.S_IFMT(mode), "a device"), "a file")


def check_same_tensors(
    path: Path,
    stored: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    configuration: str = "this config.json",
) -> None:
    """Compare a file's names and shapes with those of a configuration. Raises FormatError if they differ."""
    for name in sorted(stored.keys() | expected.keys()):
        stored_shape, shape = stored.get(name), expected.get(name)
        if stored_shape != shape:
            raise FormatError(
                path,
                f"{name} {'absent' if stored_shape is None else list(stored_shape)}",
                "no such tensor" if shape is None else f"{name} {list(shape)}",
                f"the weights are not those of {configuration}",
            )
