"""Files of tensors of which each process wrote a part: what they hold, checked, and a tensor put together.

The format is that of torch.distributed.checkpoint's HuggingFaceStorageWriter: safetensors, with the offset of
each part in its tensor as JSON in the metadata. Whoever reads here needs no other process and no pickle. What
is put together, and each part, is written as a file of tensors by `write_tensors`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minilm.dtypes import BITS
from minilm.errors import FormatError
from minilm.formats import tensor_io
from minilm.formats.checks import is_size
from minilm.formats.header import Header, StoredTensor
from minilm.formats.json_file import parse_object
from minilm.formats.safetensors import read_header
from minilm.safe_text import short_repr

# The names of torch.distributed.checkpoint.
OFFSETS, OFFSET = "DCP_SHARDING_INFO", "saved_offsets"

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# The bits of an element, which numpy has no type for where it is a bfloat16.
_BITS = {name: f"<i{bits // 8}" for name, bits in BITS.items() if bits in (8, 16, 32, 64)}


@dataclass(frozen=True)
class Part:
    """A block of a tensor: where it begins in each dimension, and where it is stored."""

    offset: tuple[int, ...]
    stored: StoredTensor

    @property
    def end(self) -> tuple[int, ...]:
        """Where it ends in each dimension."""
        return tuple(o + n for o, n in zip(self.offset, self.stored.shape, strict=True))


@dataclass(frozen=True)
class PartedTensor:
    """A tensor that is stored in parts, which fill ``shape`` exactly; it is read in ``dtype``."""

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    def read(self) -> Tensor:
        """All of it, in memory of its own."""
        stored = self.parts[0].stored.dtype
        whole = np.empty(self.shape, _BITS[stored])
        for part in self.parts:
            block = tuple(slice(o, e) for o, e in zip(part.offset, part.end, strict=True))
            whole[block] = tensor_io.read(part.stored, _BITS)
        values = torch.from_numpy(whole).view(getattr(torch, stored))
        return values.to(getattr(torch, self.dtype))


class PartedTensors(Mapping[str, Tensor]):
    """The tensors of a ``folder`` by name, each read when it is asked for; `described` says what they are."""

    def __init__(self, folder: Path, described: Mapping[str, PartedTensor]) -> None:
        self.folder, self.described = folder, described

    def __getitem__(self, name: str) -> Tensor:
        """The tensor, whole."""
        return self.described[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.described)

    def __len__(self) -> int:
        return len(self.described)


def under(prefix: str, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Mapping[str, Tensor]:
    """Those whose names begin so, without that, in ``dtype``; of those in parts no values are read."""
    names = {name: name.removeprefix(prefix) for name in tensors if name.startswith(prefix)}
    if not isinstance(tensors, PartedTensors):
        return {short: tensors[name].to(dtype) for name, short in names.items()}
    described = {
        short: replace(tensors.described[name], dtype=_name(dtype)) for name, short in names.items()
    }
    return PartedTensors(tensors.folder, described)


def tensor_kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each; of those in parts no values are read."""
    if isinstance(tensors, PartedTensors):
        return {name: (each.dtype, each.shape) for name, each in tensors.described.items()}
    return {name: (_name(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items()}


def read_parts(folder: Path) -> PartedTensors:
    """The tensors of all safetensors files in ``folder``; no values are read.

    Raises FormatError unless the parts of each are of one dtype and fill it, without overlap.
    """
    parts: dict[str, list[Part]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        header = read_header(path)
        offsets = _offsets(path, header)
        for tensor in header.tensors:
            if tensor.dtype not in _BITS:
                expected = "whole bytes, up to eight"
                raise FormatError(path, f"{tensor.name} in {tensor.dtype}", expected)
            parts.setdefault(tensor.name, []).append(Part(offsets[tensor.name], tensor))
    described = {name: _joined(folder, name, each) for name, each in parts.items()}
    return PartedTensors(folder, described)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _offsets(path: Path, header: Header) -> dict[str, tuple[int, ...]]:
    """Where each tensor of a file begins in the one that it is a part of."""
    entries = parse_object(path, header.metadata.get(OFFSETS, "").encode())
    offsets = {}
    for tensor in header.tensors:
        entry = entries.get(tensor.name)
        offset = entry.get(OFFSET) if isinstance(entry, dict) else None
        if (
            not isinstance(offset, list)
            or len(offset) != len(tensor.shape)
            or not all(map(is_size, offset))
        ):
            got = f"{tensor.name} with {OFFSET} {short_repr(offset)}"
            raise FormatError(path, got, "a whole number for each dimension")
        offsets[tensor.name] = tuple(offset)
    return offsets


def _joined(folder: Path, name: str, parts: list[Part]) -> PartedTensor:
    """Parts as a mesh of processes makes them: each dimension is cut, and every combination is there."""
    dtypes = {part.stored.dtype for part in parts}
    dimensions = {len(part.offset) for part in parts}
    if len(dtypes) > 1 or len(dimensions) > 1:
        raise FormatError(folder, f"parts of {name} that differ in kind", "one dtype and rank")
    shape, combinations = [], 1
    for dimension in range(dimensions.pop()):
        cuts = sorted({(part.offset[dimension], part.end[dimension]) for part in parts})
        ends = [0, *(end for _, end in cuts)]
        if [start for start, _ in cuts] != ends[:-1]:
            raise FormatError(folder, f"parts of {name} that overlap or leave gaps", "all of it")
        shape.append(ends[-1])
        combinations *= len(cuts)
    if len({part.offset for part in parts}) != len(parts) or len(parts) != combinations:
        got = f"{len(parts)} parts of {name}"
        raise FormatError(folder, got, f"{combinations}, each at its own offset")
    assert math.prod(shape) == sum(part.stored.count for part in parts)
    return PartedTensor(dtypes.pop(), tuple(shape), tuple(parts))


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, hashed: bool = False
) -> None:
    """Write tensors of any device as one safetensors file, atomically, one tensor at a time.

    ``hashed``: as `tensor_io.write` has it.
    """
    plan = {
        StoredTensor(name, dtype, shape): lambda name=name: _bits(tensors[name])
        for name, (dtype, shape) in tensor_kinds(tensors).items()
    }
    tensor_io.write(path, plan, metadata, hashed=hashed)


def _bits(tensor: Tensor) -> tensor_io.Array:
    """The bits of a tensor of any device, in the same shape."""
    array: tensor_io.Array
    array = tensor.detach().cpu().contiguous().view(_INTEGERS[tensor.element_size()]).numpy()
    return array
