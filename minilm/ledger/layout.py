"""Tensor and Layout: what a family declares, and the counts and closed forms that follow from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import groupby

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
    """One declared tensor, or one in each layer and expert.

    ``repeat`` is in how many layers it occurs; ``layers`` says in which, where they are not the first
    ones: ``{i}`` in the name becomes their number. ``experts`` > 1 stands for that many in each layer,
    ``{e}`` counting from 0. Of a ``routed`` tensor one token uses e of the E experts. A ``transposed``
    matrix is stored (in, out), where others are (out, in).
    """

    name: str
    shape: tuple[Polynomial, ...]
    component: str
    role: Role
    repeat: Polynomial = ONE
    layers: Sequence[int] | None = None
    experts: Polynomial = ONE
    routed: bool = False
    transposed: bool = False

    @cached_property
    def count(self) -> Polynomial:
        """Elements of all repetitions together."""
        product = self.repeat * self.experts
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
class AttentionSpec:
    """A kind of attention layer, as far as costs go.

    ``layers`` is how many layers are of this kind; ``cache`` the elements that one token leaves in the
    KV cache of one of them; ``scores`` and ``values`` the widths, over all heads, of the products of
    queries with keys and of scores with values; ``window`` how many tokens one sees, 0 for all.
    """

    layers: Polynomial
    cache: Polynomial
    scores: Polynomial
    values: Polynomial
    window: int = 0

    def span(self, context: int) -> int:
        """How many of ``context`` tokens the last one attends to and the cache holds."""
        return min(context, self.window) if self.window else context


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
    ``buffers`` are tensors that files hold and that are not parameters; ``ignored`` are names (with
    ``{i}``) of buffers that some files hold and any loader makes anew; ``mtp`` are the tensors of
    multi-token prediction modules, which files may add and the model without them does not use.
    ``optional_prefix`` begins names that some files store without it.
    ``context_length`` is how many tokens the model is made for, 0 where that is not said.
    """

    family: str
    tensors: tuple[Tensor, ...]
    symbols: Mapping[str, int]
    ties: tuple[tuple[str, str], ...] = ()
    optional_prefix: str = ""
    buffers: tuple[Tensor, ...] = ()
    ignored: tuple[str, ...] = ()
    mtp: tuple[Tensor, ...] = ()
    attention: tuple[AttentionSpec, ...] = ()
    context_length: int = 0

    def count(
        self,
        *,
        components: tuple[str, ...] | None = None,
        role: Role | None = None,
        active: bool = False,
    ) -> int:
        """Parameters, each once; of these components and in this role when given.

        ``active`` counts what one token uses: e of the E experts, everything else whole.
        """
        return sum(
            self.value(tensor, active=active)
            for tensor in self.tensors
            if (components is None or tensor.component in components)
            and (role is None or tensor.role is role)
        )

    def value(self, tensor: Tensor, *, active: bool = False) -> int:
        """Elements of one declared tensor, all repetitions together."""
        symbols = self.symbols
        if active and tensor.routed:
            symbols = {**symbols, "E": symbols["e"]}
        return tensor.count.value(symbols)

    def named_tensors(self) -> Iterator[NamedTensor]:
        """Every parameter by its real name, layers in order."""
        return self.named(self.tensors)

    def named(self, tensors: Sequence[Tensor]) -> Iterator[NamedTensor]:
        """These declared tensors by their real names; neighbours with ``{i}`` go layer by layer."""
        for in_layers, group in groupby(tensors, lambda tensor: "{i}" in tensor.name):
            if not in_layers:
                for tensor in group:
                    yield from self._expanded(tensor, 0)
                continue
            placed = [
                (tensor, set(tensor.layers or range(tensor.repeat.value(self.symbols))))
                for tensor in group
            ]
            for i in sorted(set().union(*(layers for _, layers in placed))):
                for tensor, layers in placed:
                    if i in layers:
                        yield from self._expanded(tensor, i)

    def _expanded(self, tensor: Tensor, layer: int) -> Iterator[NamedTensor]:
        shape = tuple(dimension.value(self.symbols) for dimension in tensor.shape)
        name = tensor.name.replace("{i}", str(layer))
        if "{e}" not in name:
            yield NamedTensor(name, shape, tensor.component, tensor.role)
            return
        for expert in range(tensor.experts.value(self.symbols)):
            yield NamedTensor(
                name.replace("{e}", str(expert)), shape, tensor.component, tensor.role
            )

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
