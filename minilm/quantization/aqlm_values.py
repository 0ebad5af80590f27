"""Values of AQLM: a sum of codebooks' vectors times a scale, aqlm 1.1.7 `utils.py` (`_dequantize_weight`).

X.codes      (o/a, i/b, n), of 8, 16 or 32 bits, negative numbers from the end of a codebook
X.codebooks  (n, size, a, b)   X.scales  (o/a, 1, 1, 1)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.checkpoint import Checkpoint, UndecodableError
from minilm.quantization.dequantized import (
    Decode,
    PackedMatrix,
    check_shape,
    check_stored,
    part,
    read_array,
    read_floats,
    rounding_to,
)
from minilm.quantization.logical_tensors import LogicalTensor


@dataclass(frozen=True)
class AqlmMatrix(PackedMatrix):
    """A linear layer's matrix."""

    codes: StoredTensor
    codebooks: StoredTensor
    scales: StoredTensor

    @staticmethod
    def of(tensor: LogicalTensor, checkpoint: Checkpoint) -> AqlmMatrix:
        """Raises UndecodableError."""
        codes, codebooks = tensor.parts[0], part(tensor, ".codebooks")
        scales = part(tensor, ".scales")
        check_stored(codes, dtypes=("int8", "int16", "int32"))
        check_stored(codebooks, scales)
        if len(codes.shape) != 3 or len(codebooks.shape) != 4 or not codebooks.count:
            raise UndecodableError(f"codebooks of shape {list(codebooks.shape)}")
        (o, i, n), (number, size, a, b) = codes.shape, codebooks.shape
        if n != number or size & (size - 1) or (o * a, i * b) != tensor.shape:
            raise UndecodableError(
                f"codebooks of shape {list(codebooks.shape)} for codes of {list(codes.shape)}"
            )
        check_shape(scales, (o, 1, 1, 1))
        return AqlmMatrix(codes, codebooks, scales)

    def open(self) -> Decode:
        codes, codebooks = read_array(self.codes), read_floats(self.codebooks)
        scales, rounded = read_floats(self.scales).reshape(-1), rounding_to(self.scales.dtype)
        n, size, a, b = codebooks.shape
        inputs = codes.shape[1] * b
        of_sum = rounding_to(self.codebooks.dtype)

        def decode(start: int, count: int) -> Array:
            row, column = np.divmod(np.arange(start, start + count), inputs)
            (group, y), (vector, x) = np.divmod(row, a), np.divmod(column, b)
            chosen = codes[group, vector].astype(np.int64) % size  # elements n
            total = np.zeros(count, np.float32)
            for k in range(n):
                total += codebooks[k, chosen[:, k], y, x]
            return rounded(of_sum(total) * scales[group])

        return decode
