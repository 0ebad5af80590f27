"""Matrices with zeros as compressed-tensors stores them: the other values, and a bit for each weight.

compressed-tensors 0.14 `compressors/sparse_compressors/`, the last with these formats; X a linear layer:

    sparse-bitmask      X.compressed (n,)      X.bitmask uint8 (o, i/8)  X.shape int64 (2,)
                        X.row_offsets int64 (o,): how many values come before each row's
    sparse-24-bitmask   X.compressed (o, i/2)  X.bitmask uint8 (o, i/8)  X.shape int64 (2, 1)
                        two of every four neighbours in a row are stored, zeros or not

Column 8n + k is in bit k of byte n of a row of bits, the last byte filled up with zeros.
Shapes: o outputs, i inputs, n values that are not zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from minilm.errors import FormatError, InputError
from minilm.formats import tensor_io
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.compressed import METHOD, SPARSE_PARTS
from minilm.quantization.packing import DTYPES, stored_tensor

SparseFormat = Literal["sparse-bitmask", "sparse-24-bitmask"]

_STRUCTURES: dict[SparseFormat, str] = {
    "sparse-bitmask": "unstructured",
    "sparse-24-bitmask": "2:4",
}


@dataclass(frozen=True)
class SparsePacking:
    """How the matrices of a model's layers are stored; their values keep their dtype."""

    format: SparseFormat

    def tensors(
        self, weight: str, shape: tuple[int, ...], dtype: str, nonzero: int
    ) -> tuple[StoredTensor, ...]:
        """What is stored for the matrix named ``weight``, of which so many values are not zero."""
        o, i = shape
        values, bits, size, offsets = _names(weight)
        if self.format == "sparse-24-bitmask":
            return (
                stored_tensor(values, dtype, (o, i // 2)),
                stored_tensor(bits, "uint8", (o, -(-i // 8))),
                stored_tensor(size, "int64", (2, 1)),
            )
        return (
            stored_tensor(values, dtype, (nonzero,)),
            stored_tensor(bits, "uint8", (o, -(-i // 8))),
            stored_tensor(size, "int64", (2,)),
            stored_tensor(offsets, "int64", (o,)),
        )

    def pack(self, weight: str, matrix: Array) -> dict[str, Array]:
        """The values of `tensors`, by name; ``matrix`` (o, i) as `tensor_io.read` has it.

        Raises InputError for a matrix that is not of the pattern.
        """
        values, bits, size, offsets = _names(weight)
        if self.format == "sparse-24-bitmask":
            is_stored = _two_of_four(weight, matrix)
            packed = matrix[is_stored].reshape(len(matrix), -1)
            shape = np.array([matrix.shape], np.int64).T
            return {values: packed, bits: _bits(is_stored), size: shape}
        is_stored = _magnitudes(matrix) != 0
        counts = is_stored.sum(axis=1, dtype=np.int64)
        return {
            values: matrix[is_stored],
            bits: _bits(is_stored),
            size: np.array(matrix.shape, np.int64),
            offsets: np.cumsum(counts) - counts,
        }

    def unpack(self, weight: str, shape: tuple[int, ...], arrays: Mapping[str, Array]) -> Array:
        """The inverse of `pack`. Raises FormatError for parts that contradict each other."""
        values, bits, size, offsets = _names(weight)
        o, i = shape
        if arrays[size].reshape(-1).tolist() != [o, i] or arrays[bits].shape != (o, -(-i // 8)):
            raise FormatError(weight, "another shape", str(list(shape)))
        is_stored = np.unpackbits(arrays[bits], axis=1, count=i, bitorder="little").astype(bool)
        counts = is_stored.sum(axis=1, dtype=np.int64)
        stored = arrays[values].reshape(-1)
        if counts.sum() != len(stored):
            raise FormatError(weight, f"{len(stored)} values", f"{counts.sum()}, one a bit")
        if self.format == "sparse-bitmask" and not np.array_equal(
            arrays[offsets], np.cumsum(counts) - counts
        ):
            raise FormatError(weight, "row_offsets of other rows", "those of its bits")
        matrix = np.zeros(shape, stored.dtype)
        matrix[is_stored] = stored
        return matrix

    def names(self, weight: str) -> tuple[str, ...]:
        """Of the tensors that are stored for a matrix."""
        return _names(weight)[: 3 if self.format == "sparse-24-bitmask" else 4]

    def read(self, weight: str, shape: tuple[int, ...], parts: Mapping[str, StoredTensor]) -> Array:
        """The matrix of which a file has these ``parts``, by name. Raises FormatError."""
        arrays = {name: tensor_io.read(tensor, DTYPES) for name, tensor in parts.items()}
        return self.unpack(weight, shape, arrays)

    def config(self, ignored: Iterable[str], sparsity: float) -> dict[str, Any]:
        """The quantization_config of config.json; ``sparsity`` is that of all matrices together."""
        return {
            "quant_method": METHOD,
            "sparsity_config": {
                "format": self.format,
                "global_sparsity": sparsity,
                "sparsity_structure": _STRUCTURES[self.format],
                "targets": ["Linear"],
                "ignore": list(ignored),
                "registry_requires_subclass": False,
            },
        }


def sparse_packing_of(config: Mapping[str, Any]) -> SparsePacking | None:
    """That of a quantization_config which states one of the formats and no quantization, else None."""
    sparsity = config.get("sparsity_config")
    if config.get("quant_method") != METHOD or not isinstance(sparsity, dict):
        return None
    stated = sparsity.get("format")
    formats = [format for format in _STRUCTURES if format == stated]
    return SparsePacking(formats[0]) if formats and "config_groups" not in config else None


def count_nonzero(matrix: Array) -> int:
    """Values of a matrix, as `tensor_io.read` has it, that are not zero."""
    return int(np.count_nonzero(_magnitudes(matrix)))


def _names(weight: str) -> tuple[str, str, str, str]:
    module = weight.removesuffix("weight")
    values, bits, size, offsets = (module + part for part in SPARSE_PARTS)
    return values, bits, size, offsets


def _magnitudes(matrix: Array) -> Array:
    """The bits of floats without the sign, as unsigned numbers: in the order of the magnitudes.

    Of bfloat16, which numpy has not, the bits are what is given.
    """
    unsigned = np.dtype(f"u{matrix.dtype.itemsize}")
    bits = np.ascontiguousarray(matrix).view(unsigned)
    magnitudes: Array = bits & unsigned.type(np.iinfo(unsigned).max >> 1)
    return magnitudes


def _two_of_four(weight: str, matrix: Array) -> Array:
    """(o, i), true for the two largest of every four neighbours. Raises InputError where three are not 0."""
    if matrix.shape[1] % 4:
        raise InputError(weight, f"{matrix.shape[1]} inputs", "a multiple of 4 for 2:4")
    groups = _magnitudes(matrix).reshape(-1, 4)
    if (np.count_nonzero(groups, axis=1) > 2).any():
        raise InputError(weight, "more than two of four weights that are not zero", "2:4")
    largest = np.argsort(groups, axis=1, kind="stable")[:, 2:]
    is_stored = np.zeros(groups.shape, bool)
    np.put_along_axis(is_stored, largest, True, axis=1)
    return is_stored.reshape(matrix.shape)


def _bits(is_stored: Array) -> Array:
    return np.packbits(is_stored, axis=1, bitorder="little")
