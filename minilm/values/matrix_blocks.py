"""A stored matrix made small enough to be drawn: the root mean square of its values, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minilm.formats.header import StoredTensor
from minilm.values.read import CHUNK_ELEMENTS, Reader, matrix_shape

ROWS_READ = 16  # of a block: of a higher one these, evenly


def can_be_divided(tensor: StoredTensor) -> bool:
    """Whether it is a matrix whose rows can be read whole."""
    return len(tensor.shape) == 2 and min(tensor.shape) > 1 and tensor.shape[1] <= CHUNK_ELEMENTS


def block_sizes(tensor: StoredTensor, rows: int, columns: int) -> npt.NDArray[np.float64]:
    """(rows, columns) of nearly equal blocks, NaN where a value is not finite.

    ``tensor`` must be readable and `can_be_divided`; there are no more blocks than its own rows and columns.
    """
    height, width = matrix_shape(tensor)
    tops = np.linspace(0, height, rows + 1).astype(np.int64)
    lefts = np.linspace(0, width, columns + 1).astype(np.int64)
    sizes = np.empty((rows, columns))
    with Reader(tensor) as reader, np.errstate(all="ignore"):
        for number in range(rows):
            squares = np.zeros(columns)
            chosen = _evenly(int(tops[number]), int(tops[number + 1]))
            for row in chosen:
                values = reader.values(row * width, width).astype(np.float64)
                squares += np.add.reduceat(values**2, lefts[:-1])
            sizes[number] = np.sqrt(squares / len(chosen) / np.diff(lefts))
    sizes[~np.isfinite(sizes)] = np.nan
    return sizes


def _evenly(first: int, end: int) -> list[int]:
    """The numbers from ``first`` to before ``end``, or `ROWS_READ` of them."""
    numbers: Any = np.linspace(first, end, min(end - first, ROWS_READ), endpoint=False)
    return [int(number) for number in numbers]
