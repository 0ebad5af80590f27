"""From stored tensors to logical ones: what a checkpoint's bytes stand for, quantized or not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minilm.formats.header import Header, StoredTensor
from minilm.inspection.report import Quantization


@dataclass(frozen=True)
class LogicalTensor:
    """A tensor as the model has it: its shape, how its values are coded, and where they are.

    ``parts`` hold the values; ``scales`` what else is needed to decode them: scales, zero points,
    codebooks, permutations. ``dtype`` is the code of the values: bfloat16, int4, nf4, q4_k, ...
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parts: tuple[StoredTensor, ...]
    scales: tuple[StoredTensor, ...] = ()

    @property
    def count(self) -> int:
        """Logical elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Storage:
    """All logical tensors of a checkpoint, and by what method they are quantized (None: they are not)."""

    tensors: tuple[LogicalTensor, ...]
    method: str | None = None
    notes: tuple[str, ...] = ()


def decode(
    header: Header,
    quantization: Mapping[str, Any],
    expected: Mapping[str, tuple[int, ...]],
) -> Storage:
    """Group stored tensors into logical ones.

    ``quantization`` is config.json's quantization_config, or empty; ``expected`` are the shapes that
    the formula declares, which settle a packed tensor's shape where the file does not say it.
    """
    return Storage(tuple(LogicalTensor(t.name, t.shape, t.dtype, (t,)) for t in header.tensors))


def summary(storage: Storage) -> Quantization | None:
    """What a report says of a quantized checkpoint; None for one that is not."""
    return None
