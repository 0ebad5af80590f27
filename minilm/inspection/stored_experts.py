"""Experts as a file holds them: one by one, as transformers writes most, or stacked, as it computes them.

The files of Qwen3.5-MoE are stacked. Some of LongCat-Flash have gates and ups of experts that do nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from minilm.inspection.names import is_next_token
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor
from minilm.ledger.symbols import ONE, Polynomial, symbol

E, Z = symbol("E"), symbol("Z")
_ONE_BY_ONE = re.compile(r"(.*\.experts)\.\{e\}\.\w+\.weight")
# Of a part whose experts are of its own component.
_KINDS = {
    "gate_proj": components.EXPERTS_GATE,
    "up_proj": components.EXPERTS_UP,
    "down_proj": components.EXPERTS_DOWN,
}
_STACKED = re.compile(r"\.experts\.(?:gate_up_proj|up_proj)\Z")


def with_experts_of_file(layout: Layout, shapes: Mapping[str, tuple[int, ...]]) -> Layout:
    """``layout`` with the experts of a file with these ``shapes``, stacked where it has them so."""
    if not any(_ONE_BY_ONE.fullmatch(tensor.name) for tensor in layout.tensors):
        return layout
    stacked = [
        name for name in shapes if _STACKED.search(name) and not is_next_token(name, range(0))
    ]
    if "Z" in layout.symbols:
        first_idle = layout.symbols["E"]
        has_idle = any(f".experts.{first_idle}.gate_proj." in name for name in shapes)
        has_idle = has_idle or any(shapes[name][:1] > (first_idle,) for name in stacked)
        layout = _with_gates(layout, E + Z if has_idle else E)
    return with_stacked_experts(layout) if stacked else layout


def has_idle_gates(layout: Layout) -> bool:
    """Whether it has gates of experts that do nothing."""
    return any(
        t.component == components.EXPERTS_GATE and t.experts == E + Z for t in layout.tensors
    )


def _with_gates(layout: Layout, experts: Polynomial) -> Layout:
    gates = (components.EXPERTS_GATE, components.EXPERTS_UP)
    return replace(
        layout,
        tensors=tuple(
            replace(t, experts=experts) if t.component in gates else t for t in layout.tensors
        ),
    )


def with_stacked_experts(layout: Layout) -> Layout:
    """With ``gate_up_proj`` (E, 2m, d), ``up_proj`` (E, m, d) where there is no gate, and ``down_proj``."""
    gates = {_group(t) for t in layout.tensors if _kind(t) == components.EXPERTS_GATE}
    tensors: list[Tensor] = []
    for tensor in layout.tensors:
        group, kind = _group(tensor), _kind(tensor)
        if group is None:
            tensors.append(tensor)
        elif kind == components.EXPERTS_DOWN:
            tensors.append(_stacked(tensor, f"{group[0]}.down_proj"))
        elif kind == components.EXPERTS_UP and group not in gates:
            tensors.append(_stacked(tensor, f"{group[0]}.up_proj"))
        elif kind == components.EXPERTS_UP:
            rows, columns = tensor.shape
            own = tensor.component
            component = components.EXPERTS_GATE_UP if own == kind else own
            both = replace(tensor, shape=(2 * rows, columns), component=component)
            tensors.append(_stacked(both, f"{group[0]}.gate_up_proj"))
    return replace(layout, tensors=tuple(tensors))


def _kind(tensor: Tensor) -> str:
    """The component, as the experts of a text have it."""
    matrix = tensor.name.removesuffix(".weight").rpartition(".")[2]
    return _KINDS.get(matrix, tensor.component)


def _group(tensor: Tensor) -> tuple[str, tuple[int, ...] | None] | None:
    """The layers of an expert's matrix, None for another tensor."""
    match = _ONE_BY_ONE.fullmatch(tensor.name)
    layers = None if tensor.layers is None else tuple(tensor.layers)
    return (match[1], layers) if match else None


def _stacked(tensor: Tensor, name: str) -> Tensor:
    return replace(tensor, name=name, shape=(tensor.experts, *tensor.shape), experts=ONE)
