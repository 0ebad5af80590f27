"""Tensor and Layout: what an architecture declares, and the counts and formulas that follow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
    format_factored,
    format_polynomial,
    symbol,
)

# What the tensors of shared layers repeat over.
SHARED = symbol("S")


class Role(Enum):
    """How a tensor is used on one token."""

    LOOKED_UP = "looked up"  # one row is read
    MULTIPLIED = "multiplied"  # 2 FLOPs a parameter
    ADDED = "added"  # a bias
    SCALED = "scaled"  # a norm's gain
    ONCE = "once a text or image"  # no FLOPs of a token


@dataclass(frozen=True)
class Tensor:
    """One declared tensor, or one for each layer and expert.

    ``repeat`` is the number of layers that have it, ``layers`` their numbers unless they are the first
    ones; ``{i}`` in the name is the layer's number and ``{e}`` the expert's, from 0 to ``experts`` - 1
    in each layer. If ``routed``, one token uses e of the E experts. A ``transposed`` matrix is
    stored (in, out), where others are (out, in). ``frozen`` ones are not trained. ``runs`` is how often a
    token uses it: in the layers that share it, where not all do, in several streams or steps.
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
    frozen: bool = False
    runs: int = 1

    @cached_property
    def count(self) -> Polynomial:
        """Elements in all layers and experts together."""
        product = self.repeat * self.experts
        for dimension in self.shape:
            product = product * dimension
        return product

    @cached_property
    def active(self) -> Polynomial:
        """Those that one token uses: of a routed tensor e of the E experts."""
        if not self.routed:
            return self.count
        return self.count.substituted({"E": symbol("e"), "Z": 0})  # Z experts compute nothing


Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class NamedTensor:
    """One tensor of a concrete model: name, integer shape, and the declared tensor that it is of."""

    name: str
    shape: tuple[int, ...]
    declared: Tensor

    @property
    def component(self) -> str:
        """The component that it belongs to."""
        return self.declared.component

    @property
    def role(self) -> Role:
        """What is computed with it."""
        return self.declared.role

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class AttentionSpec:
    """The sizes of a kind of attention layer that determine its costs.

    ``layers`` is the number of such layers; ``cache`` the elements of one token in one layer's KV cache;
    ``scores`` and ``values`` the widths, over all heads, of queries times keys and of scores times
    values; ``window`` the sliding window in tokens, 0 for full attention. Sparse attention sees at most
    ``selected`` of the tokens in the cache, chosen by queries times keys of the width ``index``. An entry
    of the cache may stand for ``every`` so many tokens; ``beside`` is what the same layers see as well.
    ``fixed`` is how many entries there are of a sound or picture, whatever the length of the text.
    """

    layers: Polynomial
    cache: Polynomial
    scores: Polynomial
    values: Polynomial
    window: int = 0
    selected: int = 0
    index: Polynomial = ZERO
    every: int = 1
    beside: AttentionSpec | None = None
    fixed: int = 0

    def parts(self) -> tuple[AttentionSpec, ...]:
        """Itself, and what stands beside it."""
        return (self, *(self.beside.parts() if self.beside else ()))

    def span(self, context: int) -> int:
        """The entries for ``context`` tokens that the cache holds."""
        if self.fixed:
            return self.fixed
        return min(context, self.window) if self.window else context // self.every

    def seen(self, context: int) -> int:
        """The entries that the last of ``context`` tokens attends to."""
        return min(self.span(context), self.selected or max(context, self.fixed))

    def cached(self, context: int) -> Polynomial:
        """Elements of the cache for ``context`` tokens in all layers."""
        return sum((part.layers * part.cache * part.span(context) for part in self.parts()), ZERO)

    def multiplied(self, context: int) -> Polynomial:
        """Multiplications of the last of ``context`` tokens with keys and values, in all layers."""
        return sum(
            (
                part.layers
                * (
                    (part.scores + part.values) * part.seen(context)
                    + part.index * part.span(context)
                )
                for part in self.parts()
            ),
            ZERO,
        )


@dataclass(frozen=True)
class Formula:
    """A closed form: ASCII for programs, typographic for people, and with the symbols' values."""

    symbolic: str
    pretty: str
    substituted: str


@dataclass(frozen=True)
class Layout:
    """Every tensor of one model, symbolically, with the values of the symbols.

    Where layers are shared, the symbols have S, the number of distinct ones, over which tensors then
    repeat; attention costs what it does in each of the L layers that run.
    ``ties`` are pairs (name, name of the tensor it shares); the first name is not stored.
    ``buffers`` are stored tensors that are not parameters. ``ignored`` are names (with ``{i}``) of
    buffers that only some files hold, because loaders recompute them. ``mtp`` are the tensors of
    multi-token prediction modules, which are optional in files and not counted.
    ``optional_prefix`` is a prefix that some files omit from the names.
    ``state`` are the elements that recurrent layers keep of one sequence, however long it is.
    ``mixing`` are a token's multiplications of its residual streams with each other.
    ``context_length`` is the model's maximum number of tokens, 0 where the config has none.
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
    state: Polynomial = ZERO
    mixing: Polynomial = ZERO
    context_length: int = 0

    def count(
        self,
        *,
        components: tuple[str, ...] | None = None,
        role: Role | None = None,
        active: bool = False,
    ) -> int:
        """Parameters, each counted once; only of ``components`` and ``role`` if given.

        ``active`` counts those that one token uses: e of the E experts, and everything else.
        """
        return sum(
            self.value(tensor, active=active)
            for tensor in self.tensors
            if (components is None or tensor.component in components)
            and (role is None or tensor.role is role)
        )

    @property
    def has_tokens(self) -> bool:
        """Whether anything is computed for each token: nothing is in a convolutional network."""
        return bool(self.attention) or any(t.role is Role.MULTIPLIED for t in self.tensors)

    def trainable(self) -> int:
        """Parameters that are trained: all, unless a change of the layout froze some."""
        return sum(self.value(tensor) for tensor in self.tensors if not tensor.frozen)

    def value(self, tensor: Tensor, *, active: bool = False) -> int:
        """Elements of one declared tensor, in all layers and experts together."""
        return (tensor.active if active else tensor.count).value(self.symbols)

    def unshared(self) -> Layout:
        """The same with a copy of a shared layer each time that it runs."""
        if "S" not in self.symbols:
            return self
        return replace(self, symbols={**self.symbols, "S": self.symbols["L"]})

    def runs(self, layer: int) -> int:
        """How often a shared layer runs: the first ones once more where S does not divide L."""
        runs, more = divmod(self.symbols["L"], self.symbols["S"])
        return runs + (layer < more)

    def named_tensors(self, tensors: Sequence[Tensor] | None = None) -> Iterator[NamedTensor]:
        """``tensors``, by default all parameters, by their names in files.

        Consecutive tensors with ``{i}`` are expanded together, layer by layer.
        """
        declared = self.tensors if tensors is None else tensors
        for in_layers, group in groupby(declared, lambda tensor: "{i}" in tensor.name):
            if not in_layers:
                for tensor in group:
                    yield from _expand(tensor, 0, *self._sizes(tensor))
                continue
            layers_of = [
                (
                    tensor,
                    set(tensor.layers or range(tensor.repeat.value(self.symbols))),
                    self._sizes(tensor),
                )
                for tensor in group
            ]
            for i in sorted(set().union(*(layers for _, layers, _ in layers_of))):
                for tensor, layers, sizes in layers_of:
                    if i in layers:
                        yield from _expand(tensor, i, *sizes)

    def _sizes(self, tensor: Tensor) -> tuple[tuple[int, ...], int]:
        """Shape and experts of one declared tensor, which are the same in every layer."""
        shape = tuple(dimension.value(self.symbols) for dimension in tensor.shape)
        return shape, tensor.experts.value(self.symbols)

    def components(self) -> dict[str, list[Tensor]]:
        """The declared tensors of each component, in order of first appearance."""
        grouped: dict[str, list[Tensor]] = {}
        for tensor in self.tensors:
            grouped.setdefault(tensor.component, []).append(tensor)
        return grouped

    def formula(self) -> Formula:
        """The closed form of the whole count: the layers' terms expanded, the others factored."""
        in_layers = sum((t.count for t in self.tensors if t.repeat != ONE), ZERO)
        outside = sum((t.count for t in self.tensors if t.repeat == ONE), ZERO)
        # What is like a term outside, or a number, is none of the layers'.
        like = {m: c for m, c in in_layers.terms.items() if m in outside.terms or not m}
        in_layers, outside = in_layers - Polynomial(like), outside + Polynomial(like)

        def text(notation: Notation, values: Mapping[str, int] | None = None) -> str:
            terms = []
            if in_layers != ZERO:
                terms.append(format_polynomial(in_layers, notation, values))
            if outside != ZERO:
                terms.append(format_factored(outside, notation, values))
            return " + ".join(terms) or "0"

        return Formula(text(ASCII), text(PRETTY), text(ASCII, self.symbols))

    def component_formula(self, component: str) -> Formula:
        """The closed form of one component's count."""
        return self._sum([t for t in self.tensors if t.component == component])

    def trainable_formula(self) -> Formula:
        """The closed form of `trainable`."""
        return self._sum([t for t in self.tensors if not t.frozen])

    def _sum(self, tensors: Sequence[Tensor]) -> Formula:
        total = sum((t.count for t in tensors), ZERO)
        return Formula(
            format_polynomial(total, ASCII),
            format_polynomial(total, PRETTY),
            format_polynomial(total, ASCII, self.symbols),
        )


def _expand(
    tensor: Tensor, layer: int, shape: tuple[int, ...], experts: int
) -> Iterator[NamedTensor]:
    """The tensors of one layer: one, or one for each expert."""
    name = tensor.name.replace("{i}", str(layer))
    if "{e}" not in name:
        yield NamedTensor(name, shape, tensor)
        return
    for expert in range(experts):
        yield NamedTensor(name.replace("{e}", str(expert)), shape, tensor)
