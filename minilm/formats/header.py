"""Header and StoredTensor: what the readers of all formats return."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StoredTensor:
    """One stored tensor. ``dtype`` is torch's name, GGUF's in lower case, or the file's if unknown.

    Its ``nbytes`` bytes begin at ``offset`` of ``file``, row-major and little-endian; ``offset`` is
    None where they are not contiguous (a strided view, a compressed entry).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int = 0
    offset: int | None = None
    file: Path | None = None

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A checked header: tensors in the order of their data, and the file's metadata.

    ``data_bytes`` is the tensors' size on disk; ``shared`` are pairs (name, earlier name of the same
    storage), which only torch.save records.
    """

    tensors: tuple[StoredTensor, ...]
    metadata: Mapping[str, str]
    data_bytes: int
    shared: tuple[tuple[str, str], ...] = ()
