"""What becomes of a declared tensor in a GGUF file: its parts, their names and their shapes.

Source: ggml-org/llama.cpp, the modules in `conversion/` that `convert_hf_to_gguf.py` loads: which
matrices are split, stacked, transposed or left out.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from minilm.architectures.gguf_names import STEMS, gguf_name
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial

Shape = tuple[Polynomial, ...]
Reshape = Callable[[Tensor, Mapping[str, int]], Shape]


def whole(tensor: Tensor, symbols: Mapping[str, int]) -> Shape:
    """As declared; a convolution of each channel with itself without the dimension of one."""
    if tensor.component == components.CONVOLUTION:
        return tuple(size for size in tensor.shape if size != ONE)
    return tensor.shape


def swapped(tensor: Tensor, symbols: Mapping[str, int]) -> Shape:
    """Stored as (..., in, out); a bias as it is."""
    *stack, rows, columns = tensor.shape
    return tensor.shape if tensor.role is Role.ADDED else (*stack, columns, rows)


def half(tensor: Tensor, symbols: Mapping[str, int]) -> Shape:
    """One of two of the same rows."""
    return _half_rows(tensor, tensor.shape)


def half_swapped(tensor: Tensor, symbols: Mapping[str, int]) -> Shape:
    """One of two of the same rows, that are stored as (..., in, out)."""
    return _half_rows(tensor, swapped(tensor, symbols))


def rows(number: Polynomial) -> Reshape:
    """So many of the rows."""
    return lambda tensor, symbols: (number, *tensor.shape[1:])


def sized(*shape: Polynomial) -> Reshape:
    """A shape of its own."""
    return lambda tensor, symbols: shape


def column(tensor: Tensor, symbols: Mapping[str, int]) -> Shape:
    """A vector as a matrix of one column."""
    return (*tensor.shape, ONE)


def groups(number: Polynomial) -> Reshape:
    """A vector as a matrix with a row for each group."""

    def grouped(tensor: Tensor, symbols: Mapping[str, int]) -> Shape:
        width = tensor.shape[0].value(symbols) // number.value(symbols)
        return (number, as_polynomial(width))

    return grouped


class Part(NamedTuple):
    """A tensor of the file, or one of several, that a declared one becomes.

    ``stem`` is its name without suffix and, in a layer, without what stands before; with ``{i}`` it has
    that itself. ``suffix`` is that of the declared tensor unless it is given.
    """

    stem: str
    shape: Reshape = whole
    suffix: str | None = None


# The end of a declared name, without `.weight` and `.bias` -> its parts; none for what no file has.
Parts = dict[str, tuple[Part, ...]]


def in_gguf_names(
    layout: Layout, parts: Parts | None = None, stored: Container[str] = ()
) -> Layout:
    """The same tensors, in the same order, as a GGUF file has them.

    One that is declared whole and ``stored`` whole is not split.
    """
    return replace(
        layout,
        tensors=_all_parts(layout, layout.tensors, parts or {}, stored),
        ties=(("output.weight", "token_embd.weight"),) if _has_tied_head(layout) else (),
        optional_prefix="",
        buffers=_all_parts(layout, layout.buffers, parts, stored) if parts else (),
        ignored=(),
        mtp=(),
    )


def in_all_layers(
    layout: Layout, stems: Sequence[str], stored: Container[str], kinds: Sequence[str]
) -> Layout:
    """Those of ``stems`` that the last layer is ``stored`` with are in every layer of the same kind."""
    last = layout.symbols["L"] - 1
    wide = {f"blk.{{i}}.{stem}.weight" for stem in stems if f"blk.{last}.{stem}.weight" in stored}

    def widened(tensor: Tensor) -> Tensor:
        if tensor.name not in wide or tensor.layers is None:
            return tensor
        of_kind = [i for i, kind in enumerate(kinds) if kind == kinds[tensor.layers[0]]]
        return replace(tensor, repeat=as_polynomial(len(of_kind)), layers=of_kind)

    return replace(layout, tensors=tuple(map(widened, layout.tensors))) if kinds else layout


def without_outer_ones(layout: Layout, stored: Mapping[str, Sequence[int]]) -> Layout:
    """Leading dimensions of one are kept by converters, and left out where ggml itself writes the file."""

    def squeezed(tensor: Tensor) -> Tensor:
        name = tensor.name.replace("{i}", str((tensor.layers or (0,))[0]))
        fewer = len(tensor.shape) - len(stored.get(name, tensor.shape))
        if fewer < 1 or any(size != ONE for size in tensor.shape[:fewer]):
            return tensor
        return replace(tensor, shape=tensor.shape[fewer:])

    return replace(layout, tensors=tuple(map(squeezed, layout.tensors)))


def _has_tied_head(layout: Layout) -> bool:
    """Encoders and decoders share tables as well."""
    return any("embed_tokens" not in name for name, _ in layout.ties)


def _all_parts(
    layout: Layout, tensors: tuple[Tensor, ...], parts: Parts, stored: Container[str]
) -> tuple[Tensor, ...]:
    return tuple(
        part for tensor in tensors for part in _parts(tensor, layout.symbols, parts, stored)
    )


def _parts(
    tensor: Tensor, symbols: Mapping[str, int], parts: Parts, stored: Container[str]
) -> tuple[Tensor, ...]:
    owner = tensor.name.removesuffix(".weight").removesuffix(".bias")
    ending = max((each for each in parts if owner.endswith(each)), key=len, default=None)
    if ending is None:
        return (_renamed(tensor),)
    if len(parts[ending]) > 1 and _is_stored_whole(tensor, parts[ending], stored):
        return (_renamed(tensor),)
    return tuple(_part(tensor, symbols, part) for part in parts[ending])


def _is_stored_whole(tensor: Tensor, parts: Sequence[Part], stored: Container[str]) -> bool:
    stem = STEMS.get(tensor.component)
    if stem is None or any(part.stem == stem for part in parts):  # that may be the part
        return False
    name = gguf_name(tensor)
    return any(name.replace("{i}", str(i)) in stored for i in tensor.layers or (0,))


def _part(tensor: Tensor, symbols: Mapping[str, int], part: Part) -> Tensor:
    shape = part.shape(tensor, symbols)
    if tensor.experts != ONE:
        shape = (tensor.experts, *shape)
    layer = "blk.{i}." if "{i}" in tensor.name and "{i}" not in part.stem else ""
    suffix = part.suffix
    if suffix is None:
        suffix = ".bias" if tensor.name.endswith("bias") else ".weight"
    name = f"{layer}{part.stem}{suffix}"
    return replace(tensor, name=name, shape=shape, experts=ONE, transposed=False)


def _renamed(tensor: Tensor) -> Tensor:
    """GGUF's name; all experts of a layer in one tensor; matrices as (out, in) in every architecture."""
    shape = tensor.shape[::-1] if tensor.transposed else tensor.shape
    if tensor.experts != ONE:
        shape = (tensor.experts, *shape)
    return replace(tensor, name=gguf_name(tensor), shape=shape, experts=ONE, transposed=False)


def _half_rows(tensor: Tensor, shape: Shape) -> Shape:
    at = len(shape) - (1 if tensor.role is Role.ADDED else 2)
    terms = shape[at].terms
    assert all(coefficient % 2 == 0 for coefficient in terms.values())
    halved = Polynomial({monomial: number // 2 for monomial, number in terms.items()})
    return (*shape[:at], halved, *shape[at + 1 :])
