"""Tensors as they travel: one .npy file each, read only where it is exactly what was expected.

A .npy file is a header, which is a literal, and numbers (numpy.lib.format). It is not read with numpy.load,
which would allocate what the header says before it looks for the numbers, and unpack archives.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from minilm.errors import InputError
from minilm.safe_text import short_repr

Array = NDArray[np.float32]

DTYPE = np.dtype("<f4")
LONGEST_HEADER = 1000  # bytes; numpy writes 118


def to_bytes(arrays: Sequence[Array]) -> list[bytes]:
    """Each as a .npy file."""
    files = []
    for array in arrays:
        stream = io.BytesIO()
        np.save(stream, np.ascontiguousarray(array, DTYPE), allow_pickle=False)
        files.append(stream.getvalue())
    return files


def from_bytes(files: Sequence[bytes], shapes: Mapping[str, tuple[int, ...]]) -> list[Array]:
    """The inverse, read-only, of exactly the tensors ``shapes``, in their order.

    Raises InputError for another count, dtype, shape or size, and for what is not finite. Nothing is
    allocated before that is known.
    """
    if len(files) != len(shapes):
        raise InputError("an update", f"{len(files)} tensors", f"{len(shapes)}")
    return [
        _read(file, name, shape) for file, (name, shape) in zip(files, shapes.items(), strict=True)
    ]


def _read(file: bytes, name: str, shape: tuple[int, ...]) -> Array:
    stream = io.BytesIO(file[:LONGEST_HEADER])
    try:
        version = npy.read_magic(stream)
        got, fortran_order, dtype = npy.read_array_header_1_0(stream, LONGEST_HEADER)
    except (ValueError, TypeError, MemoryError, RecursionError):
        raise InputError(name, "no header of a .npy file", "a tensor as numpy saves it") from None
    if version != (1, 0) or fortran_order or dtype != DTYPE or got != shape:
        raise InputError(name, f"{dtype} of shape {short_repr(got)}", f"{DTYPE} of shape {shape}")
    size, expected = len(file) - stream.tell(), math.prod(shape) * DTYPE.itemsize
    if size != expected:
        raise InputError(name, f"{size:,} bytes", f"{expected:,}")
    array: Array = np.frombuffer(file, DTYPE, offset=stream.tell()).reshape(shape)
    if not np.isfinite(array).all():
        raise InputError(name, "values that are not finite", "numbers")
    return array
