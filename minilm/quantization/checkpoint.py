"""What a method may ask of a checkpoint: a tensor's companions, its shape, and small tensors' bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from minilm.formats.header import Header, StoredTensor

Shape = tuple[int, ...]

# A shape or a description in JSON; the real ones have under 200 bytes.
LARGEST_CONTROL = 4096


@dataclass(frozen=True)
class Decoded:
    """What a stored tensor of values stands for; ``scales`` are the tensors that belong to it."""

    name: str
    shape: Shape
    dtype: str
    method: str
    scales: tuple[StoredTensor, ...] = ()


class UndecodableError(Exception):
    """A tensor is packed by a method and cannot be what that method writes; says why in a clause."""


class Checkpoint:
    """A header with what is known of it. Keeps the last file open that a small tensor was read from."""

    def __init__(
        self, header: Header, config: Mapping[str, Any], expected: Mapping[str, Shape]
    ) -> None:
        self.tensors = {tensor.name: tensor for tensor in header.tensors}
        self.metadata = header.metadata
        self.config = config
        self.expected = expected
        self._path: Path | None = None
        self._stream: FileIO | None = None

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def companions(self, prefix: str, *endings: str) -> tuple[StoredTensor, ...]:
        """The tensors named ``prefix`` with one of ``endings``, as far as they are there."""
        names = (prefix + ending for ending in endings)
        return tuple(self.tensors[name] for name in names if name in self.tensors)

    def settled(self, name: str, shape: Shape) -> Shape:
        """``shape``, turned as the model has it: a packed matrix may lie either way around."""
        expected = self.expected.get(name, shape)
        return expected if sorted(expected) == sorted(shape) else shape

    def expected_bits(self, name: str, values: StoredTensor) -> int | None:
        """Bits a value if ``values`` hold the tensor that the formula expects; None if they cannot."""
        return bits_of(values.nbytes, math.prod(self.expected.get(name, (0,))))

    def read(self, tensor: StoredTensor) -> bytes | None:
        """The bytes of a small tensor; None where it is large, scattered or cannot be read."""
        if tensor.file is None or tensor.offset is None or tensor.nbytes > LARGEST_CONTROL:
            return None
        try:
            if self._stream is None or tensor.file is not self._path:
                if self._stream is not None:
                    self._stream.close()
                self._path, self._stream = tensor.file, tensor.file.open("rb", buffering=0)
            self._stream.seek(tensor.offset)
            return self._stream.read(tensor.nbytes)
        except OSError:
            return None


def bits_of(nbytes: int, count: int) -> int | None:
    """Whole bits a value when ``nbytes`` hold ``count`` values without gaps: 1 to 8, else None."""
    if count == 0 or nbytes * 8 % count or not 1 <= nbytes * 8 // count <= 8:
        return None
    return nbytes * 8 // count


def shape_in(value: object) -> Shape | None:
    """A shape out of a file: a list of a few positive whole numbers; None for anything else."""
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= 8:
        return None
    if not all(type(size) is int and 0 < size < 2**63 for size in value):
        return None
    return tuple(value)
