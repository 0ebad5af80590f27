"""What a quantization method reads of a checkpoint: companion tensors, shapes, small tensors' bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from struct import calcsize, unpack_from
from typing import Any

from minilm.formats.header import Header, StoredTensor

Shape = tuple[int, ...]

# A tensor that holds a shape, or a JSON description.
MAX_DESCRIPTION_BYTES = 4096


@dataclass(frozen=True)
class Decoded:
    """The model's tensor that a stored one stands for; ``scales`` are the tensors needed with it."""

    name: str
    shape: Shape
    dtype: str
    method: str
    scales: tuple[StoredTensor, ...] = ()


class UndecodableError(Exception):
    """A tensor is named as a method names it but cannot be its output; the message is the reason."""


class Checkpoint:
    """A header with its quantization_config and the formula's shapes (``expected``).

    ``dtype`` is what config.json gives the model's weights, if it is known.
    A context manager: the file that a small tensor was last read from stays open until the end.
    """

    def __init__(
        self,
        header: Header,
        config: Mapping[str, Any],
        expected: Mapping[str, Shape],
        dtype: str | None = None,
    ) -> None:
        self.tensors = {tensor.name: tensor for tensor in header.tensors}
        self.metadata = header.metadata
        self.config, self.expected, self.dtype = config, expected, dtype
        self._by_module: dict[str, list[StoredTensor]] | None = None
        self._path: Path | None = None
        self._stream: FileIO | None = None

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def companions(self, prefix: str, *endings: str) -> tuple[StoredTensor, ...]:
        """The stored tensors named ``prefix`` + one of ``endings``, in the order of ``endings``."""
        names = (prefix + ending for ending in endings)
        return tuple(self.tensors[name] for name in names if name in self.tensors)

    def tensors_of(self, module: str) -> list[StoredTensor]:
        """The stored tensors directly in ``module``."""
        if self._by_module is None:
            self._by_module = {}
            for tensor in self.tensors.values():
                self._by_module.setdefault(tensor.name.rpartition(".")[0], []).append(tensor)
        return self._by_module.get(module, [])

    def oriented_shape(self, name: str, shape: Shape) -> Shape:
        """``shape`` with its dimensions in the model's order: a packed matrix may be transposed."""
        expected = self.expected.get(name, shape)
        return expected if sorted(expected) == sorted(shape) else shape

    def expected_bits(self, name: str, values: StoredTensor) -> int | None:
        """Bits a value if ``values`` hold the tensor of the formula; None if they cannot."""
        return bits_per_value(values.nbytes, math.prod(self.expected.get(name, (0,))))

    def read(self, tensor: StoredTensor) -> bytes | None:
        """The bytes of a small tensor; None where it is large, not contiguous or unreadable."""
        if tensor.file is None or tensor.offset is None or tensor.nbytes > MAX_DESCRIPTION_BYTES:
            return None
        try:
            if self._stream is None or tensor.file is not self._path:
                if self._stream is not None:
                    self._stream.close()
                    self._stream = None
                self._path, self._stream = tensor.file, tensor.file.open("rb", buffering=0)
            self._stream.seek(tensor.offset)
            return self._stream.read(tensor.nbytes)
        except OSError:
            return None

    def read_shape(self, tensor: StoredTensor | None) -> Shape | None:
        """The shape that a tensor of int32 or int64 holds; None where it holds none."""
        letter = {"int64": "q", "int32": "i"}.get(tensor.dtype if tensor else "")
        if tensor is None or letter is None:
            return None
        raw = self.read(tensor) or b""
        number = len(raw) // calcsize(f"<{letter}")
        return parse_shape(unpack_from(f"<{number}{letter}", raw))


def bits_per_value(nbytes: int, count: int) -> int | None:
    """Bits of each of ``count`` values that fill ``nbytes``, if that is a whole number from 1 to 8."""
    if count == 0 or nbytes * 8 % count or not 1 <= nbytes * 8 // count <= 8:
        return None
    return nbytes * 8 // count


def parse_shape(value: object) -> Shape | None:
    """A shape read from a file: a list of a few positive whole numbers; None for anything else."""
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= 8:
        return None
    if not all(type(size) is int and 0 < size < 2**63 for size in value):
        return None
    return tuple(value)
