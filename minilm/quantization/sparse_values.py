"""Values of matrices of which the zeros are left out; see `sparse_packing.py`, which reads one whole."""

from __future__ import annotations

from dataclasses import dataclass

from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array, as_float32
from minilm.quantization.checkpoint import Checkpoint
from minilm.quantization.dequantized import (
    DecodeRows,
    PackedByRows,
    check_stored,
    is_transposed,
)
from minilm.quantization.logical_tensors import LogicalTensor
from minilm.quantization.sparse_packing import SparsePacking


@dataclass(frozen=True)
class SparseMatrix(PackedByRows):
    """A linear layer's matrix, of these ``parts``."""

    name: str
    packing: SparsePacking
    parts: tuple[StoredTensor, ...]

    def open_rows(self) -> DecodeRows:
        parts = {part.name: part for part in self.parts}
        matrix = self.packing.read(self.name, self.stored, parts)

        def decode(first: int, count: int) -> Array:
            return as_float32(matrix[first : first + count])

        return decode


def packed_without_zeros(tensor: LogicalTensor, checkpoint: Checkpoint) -> PackedByRows:
    """Raises UndecodableError."""
    values, *others = parts = (*tensor.parts, *tensor.scales)
    check_stored(values)
    check_stored(*others, dtypes=("uint8", "int64"))
    packing = SparsePacking(
        "sparse-bitmask" if tensor.method == "sparse-bitmask" else "sparse-24-bitmask"
    )
    shape = checkpoint.read_shape(next(each for each in others if each.name.endswith("shape")))
    stored = shape or tensor.shape
    return SparseMatrix(stored, is_transposed(tensor, stored), tensor.name, packing, parts)
