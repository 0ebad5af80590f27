"""Tensors as they travel: one .npy file each, read only where it is exactly what was expected.

A .npy file is a header and numbers (numpy.lib.format). The header is compared with what it has to be, and
not parsed: numpy.load would allocate what it says before looking for the numbers, and unpack archives.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from minilm.errors import InputError

Array = NDArray[np.float32]

DTYPE = np.dtype("<f4")


def to_bytes(arrays: Sequence[Array]) -> list[bytes]:
    """Each as a .npy file."""
    files = []
    for array in arrays:
        stream = io.BytesIO()
        np.save(stream, np.asarray(array, DTYPE, order="C"), allow_pickle=False)
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
    header = _header(shape)
    if not file.startswith(header):
        raise InputError(name, "another header", f"{DTYPE} of shape {shape} as numpy saves it")
    size, expected = len(file) - len(header), math.prod(shape) * DTYPE.itemsize
    if size != expected:
        raise InputError(name, f"{size:,} bytes", f"{expected:,}")
    array: Array = np.frombuffer(file, DTYPE, offset=len(header)).reshape(shape)
    if not np.isfinite(array).all():
        raise InputError(name, "values that are not finite", "numbers")
    return array


def _header(shape: tuple[int, ...]) -> bytes:
    """Magic, version and header of a tensor: all that comes before its numbers."""
    stream = io.BytesIO()
    fields = {"descr": DTYPE.str, "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(stream, fields)
    return stream.getvalue()
