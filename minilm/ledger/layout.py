"""Tensor and Layout: what a family declares, and the counts and closed forms that follow from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from minilm.ledger.symbols import (
    ASCII,
    ONE,
    PRETTY,
    ZERO,
    Notation,
    Polynomial,
    written,
    written_factored,
)


class Role(Enum):
    """How a tensor is used on one token."""

    LOOKED_UP = "looked up"  # one row is read
    MULTIPLIED = "multiplied"  # 2 FLOPs a parameter
    ADDED = "added"  # a bias
    SCALED = "scaled"  # a norm's gain


@dataclass(frozen=True)
class Tensor:
    """One declared tensor; with ``repeat`` > 1 it stands for that many, ``{i}`` counting from 0."""

    name: str
    shape: tuple[Polynomial, ...]
    component: str
    role: Role
    repeat: Polynomial = ONE

    @property
    def count(self) -> Polynomial:
        """Elements of all repetitions together."""
        product = self.repeat
        for dimension in self.shape:
            product = product * dimension
        return product


@dataclass(frozen=True)
class NamedTensor:
    """One tensor of a real model: its name, its shape as integers, and what it is part of."""

    name: str
    shape: tuple[int, ...]
    component: str
    role: Role

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Formula:
    """A polynomial written for programs, for people, and with the numbers put in."""

    symbolic: str
    pretty: str
    substituted: str


@dataclass(frozen=True)
class Layout:
    """Every tensor of one model, symbolically, with the values of the symbols.

    ``ties`` are pairs (name, name of the tensor it shares); the first name is not stored.
    ``optional_prefix`` begins names that some files store without it; ``buffers`` are names of tensors
    that files may hold and that are not parameters.
    ``kv_cache_per_token`` counts the elements that one token leaves in the KV cache;
    ``attention_width`` is the width of all heads of all layers, by which attention's FLOPs go;
    ``sliding_window`` is how many tokens a token sees, 0 for all.
    """

    family: str
    tensors: tuple[Tensor, ...]
    symbols: Mapping[str, int]
    ties: tuple[tuple[str, str], ...] = ()
    optional_prefix: str = ""
    buffers: tuple[str, ...] = ()
    kv_cache_per_token: Polynomial = ZERO
    attention_width: Polynomial = ZERO
    sliding_window: int = 0

    def count(self, *, components: tuple[str, ...] | None = None, role: Role | None = None) -> int:
        """Parameters, each once; of these components and in this role when given."""
        return sum(
            tensor.count.value(self.symbols)
            for tensor in self.tensors
            if (components is None or tensor.component in components)
            and (role is None or tensor.role is role)
        )

    def named_tensors(self) -> Iterator[NamedTensor]:
        """Every tensor by its real name, blocks in order."""
        index = 0
        while index < len(self.tensors):
            group = [self.tensors[index]]
            # Neighbours with the same repeat are one block: all of layer 0, then all of layer 1.
            for tensor in self.tensors[index + 1 :]:
                if tensor.repeat != group[0].repeat or "{i}" not in tensor.name:
                    break
                group.append(tensor)
            for i in range(group[0].repeat.value(self.symbols)):
                for tensor in group:
                    yield NamedTensor(
                        tensor.name.replace("{i}", str(i)),
                        tuple(dimension.value(self.symbols) for dimension in tensor.shape),
                        tensor.component,
                        tensor.role,
                    )
            index += len(group)

    def span(self, context: int) -> int:
        """How many of ``context`` tokens the last one attends to and the cache holds."""
        return min(context, self.sliding_window) if self.sliding_window else context

    def components(self) -> dict[str, list[Tensor]]:
        """The declared tensors of each component, in order of first appearance."""
        grouped: dict[str, list[Tensor]] = {}
        for tensor in self.tensors:
            grouped.setdefault(tensor.component, []).append(tensor)
        return grouped

    def formula(self) -> Formula:
        """The closed form of the whole count: the blocks expanded, the rest factored."""
        repeated = sum((t.count for t in self.tensors if t.repeat != ONE), ZERO)
        once = sum((t.count for t in self.tensors if t.repeat == ONE), ZERO)

        def text(notation: Notation, values: Mapping[str, int] | None = None) -> str:
            parts = []
            if repeated != ZERO:
                parts.append(written(repeated, notation, values))
            if once != ZERO:
                parts.append(written_factored(once, notation, values))
            return " + ".join(parts) or "0"

        return Formula(text(ASCII), text(PRETTY), text(ASCII, self.symbols))

    def component_formula(self, component: str) -> Formula:
        """The closed form of one component's count."""
        total = sum((t.count for t in self.tensors if t.component == component), ZERO)
        return Formula(
            written(total, ASCII), written(total, PRETTY), written(total, ASCII, self.symbols)
        )
