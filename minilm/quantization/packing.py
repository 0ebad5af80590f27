"""Matrices rounded to few bits, packed as other programs store them, and read back: each the inverse.

`Packing` is what the formats have in common: each is in a file of its own, and all are listed in packings.py.

Scales of integers are bfloat16: the codes are rounded by the scale as it is stored, so that it loses nothing.
Shapes: o outputs, i inputs, g groups of inputs that share a scale.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from minilm.errors import ConfigError, FormatError
from minilm.formats import tensor_io
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.ledger.components import LM_HEAD
from minilm.ledger.layout import Layout, Role
from minilm.quantization.double_quantization import RoundedScales

Format = Literal["int8", "int4", "nf4"]
FORMATS: tuple[Format, ...] = get_args(Format)
GROUP_SIZES = (32, 64, 128)

# numpy's types of what a packed file holds; of bfloat16 the bits.
DTYPES = {"int8": "i1", "uint8": "u1", "int32": "<i4", "int64": "<i8"} | {
    "bfloat16": "<u2",
    "float16": "<f2",
    "float32": "<f4",
}


@dataclass(frozen=True)
class Rounded:
    """A matrix as a code for each weight, (o, i), and a float32 scale for each group, (o, g).

    ``of_scales``: where these are rounded too, as what.
    """

    codes: Array
    scales: Array
    of_scales: RoundedScales | None = None


class Packing(ABC):
    """How linear layers are stored: ``format``, and how many inputs of a row share a scale (0: all)."""

    format: Format
    group_size: int
    zero: int  # the code of 0

    @abstractmethod
    def round(self, weight: Array) -> Rounded:
        """The nearest codes of a float32 matrix (o, i)."""

    @abstractmethod
    def values(self, rounded: Rounded) -> Array:
        """The float32 matrix (o, i) that codes and scales stand for, as the readers of the format have it."""

    @abstractmethod
    def tensors(self, weight: str, shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        """What is stored for the matrix named ``weight``, the codes first."""

    @abstractmethod
    def pack(self, weight: str, rounded: Rounded) -> dict[str, Array]:
        """The values of `tensors`, by name."""

    @abstractmethod
    def unpack(self, weight: str, shape: tuple[int, ...], arrays: Mapping[str, Array]) -> Rounded:
        """The inverse of `pack`. Raises FormatError for a description that is not of this packing."""

    @abstractmethod
    def config(self, ignored: Iterable[str]) -> dict[str, Any]:
        """The quantization_config of config.json; ``ignored`` linear layers are not quantized."""

    def metadata(
        self, matrices: Mapping[str, tuple[int, ...]], others: Iterable[str]
    ) -> dict[str, str]:
        """What the header of the file says besides of the quantized ``matrices`` and the ``others``."""
        return {}

    def check(self, matrices: Mapping[str, tuple[int, ...]]) -> None:
        """Raises ConfigError where the groups do not divide a row of one of the ``matrices``."""
        for weight, (_, inputs) in matrices.items():
            if self.group_size and inputs % self.group_size:
                widths = [columns for _, columns in matrices.values()]
                fitting = [
                    str(size) for size in GROUP_SIZES if not any(width % size for width in widths)
                ]
                raise ConfigError(
                    f"{self.format} in groups of {self.group_size}",
                    f"{weight} with {inputs} inputs",
                    "a width that they divide",
                    f"group_size {' or '.join(fitting)} fits every matrix"
                    if fitting and self.format == "int4"
                    else "int8 fits every width",
                )

    def predicted(self, weight: str, shape: tuple[int, ...]) -> tuple[int, int]:
        """Bytes of the codes of a matrix, and of everything else that is stored for it."""
        codes, *others = (tensor.nbytes for tensor in self.tensors(weight, shape))
        return codes, sum(others)


def quantized_matrices(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what is quantized of a model: the matrices of its layers, the head left out."""
    return {
        tensor.name: tensor.shape
        for tensor in layout.named_tensors()
        if tensor.role is Role.MULTIPLIED and tensor.component != LM_HEAD
    }


def read_rounded(
    packing: Packing, weight: str, shape: tuple[int, ...], stored: Mapping[str, StoredTensor]
) -> Rounded:
    """Codes and scales of one matrix, from the file whose tensors are ``stored``. Raises FormatError."""
    tensors = packing.tensors(weight, shape)
    for tensor in tensors:
        actual = stored[tensor.name]
        if (actual.dtype, actual.shape) != (tensor.dtype, tensor.shape):
            raise FormatError(
                actual.file or actual.name,
                f"{actual.name} {actual.dtype} {list(actual.shape)}",
                f"{tensor.dtype} {list(tensor.shape)}",
            )
    arrays = {tensor.name: tensor_io.read(stored[tensor.name], DTYPES) for tensor in tensors}
    try:
        return packing.unpack(weight, shape, arrays)
    except FormatError as error:
        file = stored[tensors[0].name].file
        raise FormatError(f"{file}: {error.where}", error.got, error.expected) from None


def to_bfloat16(values: Array) -> Array:
    """float32 values rounded to those that bfloat16 has, to nearest and ties to even."""
    return (bfloat16_bits(values).astype(np.uint32) << 16).view(np.float32)


def bfloat16_bits(values: Array) -> Array:
    """float32 values as the bits of bfloat16, uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    bits = bits + 0x7FFF + (bits >> 16 & 1)
    return (bits >> 16).astype(np.uint16)


def grouped(matrix: Array, group_size: int) -> Array:
    """(o, i) -> (o, g, s), one group a row where the size is 0."""
    o, i = matrix.shape
    return matrix.reshape(o, -1, group_size or i)


def stored_tensor(name: str, dtype: str, shape: tuple[int, ...]) -> StoredTensor:
    """One that is to be written, with its bytes."""
    itemsize = np.dtype(DTYPES[dtype]).itemsize
    return StoredTensor(name, dtype, shape, nbytes=int(np.prod(shape)) * itemsize)
