"""Values of EXL2: groups of inputs of 2 to 8 bits, by exllamav2 0.3.2.

`exllamav2_ext/cuda/q_matrix.cu` (`reconstruct_kernel`), `cuda/pack_tensor.cu`, `conversion/adaptivegptq.py`
(`pack`) and `ext.py` (`make_q_matrix`); X a linear layer of i inputs and o outputs:

    X.q_weight int32 (rows, o)   group after group, as GPTQ packs integers
    X.q_groups int16 (2g,)       of each group its bits and its first row
    X.q_scale int32 (g, o/8)     4 bits s, and X.q_scale_max float16 (g,): (s + 1)^2 / 256 of it are the scale
    X.q_invperm int32 (i,)       where each input is in this order
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilm.errors import FormatError
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.bit_fields import unpack
from minilm.quantization.checkpoint import Checkpoint
from minilm.quantization.dequantized import (
    DecodeRows,
    PackedByRows,
    check_shape,
    check_stored,
    is_transposed,
    part,
    read_array,
    read_floats,
    read_groups,
    rounding_to,
)
from minilm.quantization.logical_tensors import LogicalTensor


@dataclass(frozen=True)
class Exl2Matrix(PackedByRows):
    """A linear layer's matrix."""

    words: StoredTensor
    groups: StoredTensor
    scales: StoredTensor
    largest: StoredTensor
    places: StoredTensor

    @staticmethod
    def of(tensor: LogicalTensor, checkpoint: Checkpoint) -> Exl2Matrix:
        """Raises UndecodableError."""
        words, groups, scales, largest, places = (
            tensor.parts[0],
            *(part(tensor, f".q_{each}") for each in ("groups", "scale", "scale_max", "invperm")),
        )
        check_stored(words, scales, places, dtypes=("int32",))
        check_stored(groups, dtypes=("int16",))
        check_stored(largest, dtypes=("float16",))
        stored = words.shape[1], places.count
        number = largest.count
        check_shape(places, (places.count,))
        check_shape(largest, (number,))
        check_shape(groups, (2 * number,))
        check_shape(scales, (number, -(-stored[0] // 8)))
        return Exl2Matrix(
            *(stored, is_transposed(tensor, stored), words),
            groups=groups,
            scales=scales,
            largest=largest,
            places=places,
        )

    def open_rows(self) -> DecodeRows:
        runs, counts = self._runs()
        words, places = read_array(self.words), read_groups(self.places, self.stored[1])
        group = np.repeat(np.arange(len(counts)), counts)[: self.stored[1]]
        rounded = rounding_to("float16")
        steps = np.square(unpack(read_array(self.scales), 4).astype(np.float32) + 1)
        # Of a group and an output.
        scales = rounded(steps * rounded(read_floats(self.largest)[:, None] / 256))

        def decode(first: int, count: int) -> Array:
            chosen = slice(first, first + count)
            parts = [
                unpack(words[begin:end, chosen].T, bits).astype(np.float32) - 2 ** (bits - 1)
                for bits, begin, end in runs
            ]
            integers = np.concatenate(parts, axis=1)[:, : self.stored[1]]
            return rounded(integers * scales[:, chosen].T[:, group])[:, places]

        return decode

    def _runs(self) -> tuple[list[tuple[int, int, int]], list[int]]:
        """(bits, first row, last) of groups of equal bits, and inputs of each group. Raises FormatError."""
        bits, starts = read_array(self.groups).reshape(-1, 2).T.tolist()
        ends = [*starts[1:], self.words.shape[0]]
        counts = [
            32 * (end - begin) // width if 0 < width <= 8 and end > begin else 0
            for width, begin, end in zip(bits, starts, ends, strict=True)
        ]
        if not counts or starts[0] != 0 or 0 in counts or sum(counts) < self.stored[1]:
            got = f"{self.groups.name} with {sum(counts)} inputs in its groups"
            raise FormatError(self.groups.file, got, str(self.stored[1]))
        runs: list[tuple[int, int, int]] = []
        for width, begin, end in zip(bits, starts, ends, strict=True):
            if runs and runs[-1][0] == width:
                runs[-1] = width, runs[-1][1], end
            else:
                runs.append((width, begin, end))
        return runs, counts
