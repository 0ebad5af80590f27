"""Tokens in several files as one array, of which only what is being read counts as this process's memory."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.unsignedinteger[Any]]

# Pages read from the files stay mapped until so many bytes have been read.
_RELEASE_BYTES = 2**24
_READ_AROUND = 2**16  # what the system maps of a file around a page that is read


class ShardedTokens:
    """The tokens of several arrays one after another, (n,): its length, slices, and single tokens.

    A slice is a copy. Arrays that map files are released from time to time: windows at random places would
    otherwise map all of a large text.
    """

    def __init__(self, arrays: Sequence[Tokens]) -> None:
        """``arrays``: at least one, of one dtype."""
        self._arrays: list[Array] = []
        for each in arrays:
            self._arrays += each._arrays if isinstance(each, ShardedTokens) else [each]
        self._ends = np.cumsum([len(array) for array in self._arrays])
        bases: list[Any] = [array.base for array in self._arrays]
        self._maps = [base for base in bases if isinstance(base, mmap.mmap)]
        self._bytes_read = 0
        self.dtype = self._arrays[0].dtype

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: slice | int) -> Any:
        if not isinstance(index, slice):
            position = range(len(self))[index]
            return self[position : position + 1][0]
        start, stop, step = index.indices(len(self))
        assert step == 1
        parts = [np.empty(0, self.dtype)]
        number = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            array, end = self._arrays[number], int(self._ends[number])
            first = end - len(array)
            parts.append(array[start - first : min(stop, end) - first])
            start = min(stop, end)
            number += 1
        tokens = np.concatenate(parts)
        self._release_after(tokens.nbytes)
        return tokens

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def _release_after(self, num_bytes: int) -> None:
        self._bytes_read += max(num_bytes, _READ_AROUND)
        if self._bytes_read > _RELEASE_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._bytes_read = 0
            for each in self._maps:
                each.madvise(mmap.MADV_DONTNEED)


Tokens = Array | ShardedTokens
