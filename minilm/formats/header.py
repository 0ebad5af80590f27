"""Header and StoredTensor: what the readers of all formats return."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

# The endings of weights files, safer formats first.
TORCH_ENDINGS = (".bin", ".pth", ".pt", ".ckpt", ".pt2")
WEIGHTS_ENDINGS = (".safetensors", ".gguf", *TORCH_ENDINGS)

# The prefixes that torch.compile and DistributedDataParallel add to every name.
WRAPPERS = ("_orig_mod.", "module.")


def wrapper_prefix(names: Collection[str]) -> str:
    """The prefix of wrappers that all of ``names`` have; empty where they have none."""

    def is_shared(prefix: str) -> bool:
        return all(name.startswith(prefix) and len(name) > len(prefix) for name in names)

    prefix = ""
    while wrapper := next((w for w in WRAPPERS if names and is_shared(prefix + w)), ""):
        prefix += wrapper
    return prefix


def whole_number(metadata: Mapping[str, str], key: str) -> int | None:
    """What a GGUF file's metadata has under ``key``, if it is a whole number of at most 64 bits."""
    text = metadata.get(key, "")
    number = int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None
    return number if number is not None and number < 2**64 else None


def whole_numbers(metadata: Mapping[str, str], key: str) -> tuple[int, ...] | None:
    """The list of whole numbers of at most 64 bits that a GGUF file's metadata has under ``key``."""
    text = metadata.get(key, "")
    if not re.fullmatch(r"\[[0-9]{1,20}(, [0-9]{1,20})*\]", text):
        return None
    numbers = tuple(int(number) for number in text[1:-1].split(", "))
    return numbers if max(numbers) < 2**64 else None


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

    ``data_bytes`` is the tensors' size on disk; ``shared`` are pairs (name, name of the tensor that it
    is): of one storage, as torch's own files record them, or a copy of it; ``buffers`` are the names
    that the file says are no parameters; ``prefix`` is that of wrappers, which was removed from every
    name; ``omissions`` are lines about the tensors outside the model; ``index_totals`` is what the index of
    several files says of them together, any JSON, unchecked.
    """

    tensors: tuple[StoredTensor, ...]
    metadata: Mapping[str, str]
    data_bytes: int
    shared: tuple[tuple[str, str], ...] = ()
    buffers: frozenset[str] = frozenset()
    prefix: str = ""
    omissions: tuple[str, ...] = ()
    index_totals: Mapping[str, object] = field(default_factory=dict)

    def with_omission(self, line: str) -> Header:
        """The same with a line about the tensors outside the model, unless it is empty."""
        return replace(self, omissions=(*self.omissions, line)) if line else self

    @property
    def lines(self) -> tuple[str, ...]:
        """What the reader left out, of tensors and of names."""
        if not self.prefix:
            return self.omissions
        return (*self.omissions, f"the prefix {self.prefix!r} of every name is left out")
