"""Values of Marlin's 4 bits: (integer - 8) * scale, in the order of its GPU kernel.

IST-DASLab/marlin `__init__.py` (`_get_perms`, `Layer.pack`); X a linear layer of i inputs and o outputs:

    X.B int32 (i/16, 2*o)  of tiles of 16 inputs by 16 outputs, the integers of 4 tiles mixed up
    X.s float16 (g, o)     in runs of 64 outputs (of 32, where one scale is for all inputs) mixed up
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.bit_fields import unpack
from minilm.quantization.checkpoint import Checkpoint, UndecodableError
from minilm.quantization.dequantized import (
    DecodeRows,
    PackedByRows,
    check_shape,
    check_stored,
    is_transposed,
    part,
    read_array,
    read_floats,
    rounding_to,
    value_dtype,
)
from minilm.quantization.logical_tensors import LogicalTensor

_TILE, _TILES = 16, 4
_RUN = _TILE * _TILES  # outputs whose integers are mixed up


@dataclass(frozen=True)
class MarlinMatrix(PackedByRows):
    """A linear layer's matrix."""

    words: StoredTensor
    scales: StoredTensor
    dtype: str

    @staticmethod
    def of(tensor: LogicalTensor, checkpoint: Checkpoint) -> MarlinMatrix:
        """Raises UndecodableError."""
        words, scales = tensor.parts[0], part(tensor, ".s")
        check_stored(words, dtypes=("int32",))
        check_stored(scales)
        if len(scales.shape) != 2:
            raise UndecodableError(f"s of shape {list(scales.shape)}")
        (groups, outputs), inputs = scales.shape, words.shape[0] * _TILE
        check_shape(words, (words.shape[0], 2 * outputs))  # other widths have other bits
        if not groups or inputs % groups or outputs % _RUN:
            raise UndecodableError(f"s of shape {list(scales.shape)}")
        stored = outputs, inputs
        dtype = value_dtype(scales, checkpoint)
        return MarlinMatrix(stored, is_transposed(tensor, stored), words, scales, dtype)

    def open_rows(self) -> DecodeRows:
        (outputs, inputs), rounded = self.stored, rounding_to(self.dtype)
        words, stored = read_array(self.words), read_floats(self.scales)
        places = np.argsort(_scale_order(is_single=len(stored) == 1))
        scales = stored.reshape(len(stored), -1, len(places))[..., places].reshape(-1, outputs).T
        order = np.argsort(_order())

        def decode(first: int, count: int) -> Array:
            run, last = first // _RUN, -(-(first + count) // _RUN)
            some = words[:, 2 * _RUN * run : 2 * _RUN * last]
            mixed = unpack(some, 4).reshape(len(words), last - run, -1)[..., order]
            tiles = mixed.reshape(-1, last - run, _TILES, _TILE, _TILE)  # tile, run, tile, i, o
            integers = tiles.transpose(1, 2, 4, 0, 3).reshape(-1, inputs)
            integers = integers[first - run * _RUN :][:count].astype(np.float32) - np.float32(8)
            groups = integers.reshape(count, scales.shape[1], -1)
            return rounded((groups * scales[first : first + count, :, None]).reshape(count, -1))

        return decode


def _order() -> list[int]:
    """Which of the 4 tiles' integers, tile by tile, is at each place of a run of words, the lowest first."""
    order: list[int] = []
    for thread in range(32):
        column, row = thread // 4, 2 * (thread % 4)
        of_thread = [
            _TILE * each + column + block
            for block in (0, 8)
            for each in (row, row + 1, row + 8, row + 9)
        ]
        interleaved = [of_thread[i] for i in (0, 2, 4, 6, 1, 3, 5, 7)]
        order += [place + _TILE * _TILE * tile for tile in range(_TILES) for place in interleaved]
    return order


def _scale_order(*, is_single: bool) -> list[int]:
    """Which scale of a run is at each place."""
    if is_single:
        return [2 * i + j for i in range(4) for j in (0, 1, 8, 9, 16, 17, 24, 25)]
    return [i + 8 * j for i in range(8) for j in range(8)]
