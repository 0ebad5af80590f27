"""Mixtures of experts: their sizes, the layers that have them, and their tensors.

A router (E, d) sends each token to e of the E experts, gated feed-forwards of width m. Layers without
experts are dense: D of them beside the M with experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from minilm.architectures.building_blocks import (
    D,
    E,
    L,
    M,
    d,
    gated_feed_forward,
    layer_kinds,
    linear,
    m,
)
from minilm.architectures.config_fields import field_name, size, size_or_null, whole_number
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import Polynomial, as_polynomial

# Experts have names of their own in every layer: a number from a file must not make us list millions.
LARGEST_EXPERT_COUNT = 65_536
_Value = TypeVar("_Value")


def read_experts(
    config: Mapping[str, Any],
    *,
    layers: int,
    total: str = "num_experts",
    active: str = "num_experts_per_tok",
    width: str = "moe_intermediate_size",
    defaults: tuple[int, int | None, int],
) -> dict[str, int]:
    """Read E, e, m under the field names of a family; ``layers`` is how many layers have experts.

    Where neither the config nor the family says how many a token uses, all are active.
    """
    experts = size(config, total, defaults[0])
    symbols = {
        "E": experts,
        "e": size_or_null(config, active, defaults[1] or experts),
        "m": size(config, width, defaults[2]),
    }
    if symbols["E"] * layers > LARGEST_EXPERT_COUNT:
        raise ConfigError(
            f"config.json: {total}",
            f"{symbols['E']} in each of {layers} layers",
            f"at most {LARGEST_EXPERT_COUNT} experts in all",
        )
    if symbols["e"] > symbols["E"]:
        raise ConfigError(
            f"config.json: {active}", f"{symbols['e']}", f"at most {symbols['E']}, the experts"
        )
    return symbols


@dataclass(frozen=True)
class LayerGroup:
    """Some of a model's layers: how many, as a symbol, and which (None: the first ones)."""

    repeat: Polynomial = L
    layers: Sequence[int] | None = None


def group_of(chosen: Sequence[int], num_layers: int) -> LayerGroup | None:
    """The ``chosen`` layers: all as L, some as their number, None for none."""
    if not chosen:
        return None
    if len(chosen) == num_layers:
        return LayerGroup()
    return LayerGroup(as_polynomial(len(chosen)), chosen)


def layers_by_value(values: Sequence[_Value]) -> dict[_Value, list[int]]:
    """The layers that have each value, in the order of their first ones."""
    found: dict[_Value, list[int]] = {}
    for i, value in enumerate(values):
        found.setdefault(value, []).append(i)
    return found


def groups_by_value(values: Sequence[_Value]) -> dict[_Value, LayerGroup]:
    """The same as groups."""
    found = layers_by_value(values).items()
    return {value: group for value, at in found if (group := group_of(at, len(values)))}


@dataclass(frozen=True)
class LayerSplit:
    """The dense layers and those with experts, None where there are none, and the values of D and M."""

    dense: LayerGroup | None
    experts: LayerGroup | None
    symbols: Mapping[str, int]
    expert_layers: int


def split_layers(num_layers: int, has_experts: Callable[[int], bool]) -> LayerSplit:
    """Sort the layers. D and M are named only where a model has both kinds."""
    chosen = [i for i in range(num_layers) if has_experts(i)]
    if not chosen:
        return LayerSplit(LayerGroup(), None, {}, 0)
    if len(chosen) == num_layers:
        return LayerSplit(None, LayerGroup(), {}, num_layers)
    dense = sorted(set(range(num_layers)) - set(chosen))
    return LayerSplit(
        LayerGroup(D, dense),
        LayerGroup(M, chosen),
        {"D": len(dense), "M": len(chosen)},
        len(chosen),
    )


def dense_feed_forward(
    prefix: str, group: LayerGroup | None, *, bias: bool = False
) -> tuple[Tensor, ...]:
    """The feed-forward of the dense layers, none where there are none."""
    if group is None:
        return ()
    return gated_feed_forward(prefix, bias=bias, repeat=group.repeat, layers=group.layers)


def routed_experts(
    prefix: str,
    group: LayerGroup | None,
    *,
    router: str = "gate",
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
) -> tuple[Tensor, ...]:
    """``prefix.gate``, or as the router is called, and ``prefix.experts.{e}.*``, each under its own names."""
    if group is None:
        return ()
    gate, up, down = names

    def matrix(name: str, rows: Polynomial, columns: Polynomial, component: str) -> Tensor:
        return Tensor(
            f"{prefix}.experts.{{e}}.{name}.weight",
            (rows, columns),
            component,
            Role.MULTIPLIED,
            group.repeat,
            group.layers,
            experts=E,
            routed=True,
        )

    return (
        *linear(
            f"{prefix}.{router}", E, d, components.ROUTER, repeat=group.repeat, layers=group.layers
        ),
        matrix(gate, m, d, components.EXPERTS_GATE),
        matrix(up, m, d, components.EXPERTS_UP),
        matrix(down, d, m, components.EXPERTS_DOWN),
    )


def stacked_experts(
    gate_up: str, down: str, group: LayerGroup | None, *, transposed: bool = False
) -> tuple[Tensor, ...]:
    """All experts' matrices in two tensors, gate above up; ``transposed`` ones are (E, in, out)."""
    if group is None:
        return ()

    def stacked(name: str, rows: Polynomial, columns: Polynomial, component: str) -> Tensor:
        shape = (E, columns, rows) if transposed else (E, rows, columns)
        return Tensor(
            name,
            shape,
            component,
            Role.MULTIPLIED,
            group.repeat,
            group.layers,
            routed=True,
        )

    return (
        stacked(gate_up, 2 * m, d, components.EXPERTS_GATE_UP),
        stacked(down, d, m, components.EXPERTS_DOWN),
    )


def with_stacked_experts(layout: Layout, prefix: str, *, transposed: bool = False) -> Layout:
    """``layout`` with all experts of a layer in ``prefix.experts.gate_up_proj`` and ``down_proj``."""
    groups = {t.repeat: t.layers for t in layout.tensors if "{e}" in t.name}
    kept = tuple(t for t in layout.tensors if "{e}" not in t.name)
    both = (f"{prefix}.experts.gate_up_proj", f"{prefix}.experts.down_proj")
    stacked = (
        tensor
        for repeat, at in groups.items()
        for tensor in stacked_experts(*both, LayerGroup(repeat, at), transposed=transposed)
    )
    return replace(layout, tensors=(*kept, *stacked))


def router(name: str, group: LayerGroup | None) -> tuple[Tensor, ...]:
    """``name.weight`` (E, d) alone."""
    if group is None:
        return ()
    return linear(name, E, d, components.ROUTER, repeat=group.repeat, layers=group.layers)


def correction_bias(name: str, group: LayerGroup | None) -> tuple[Tensor, ...]:
    """What is added to the router's scores when it chooses; set by the load, not by gradients."""
    if group is None:
        return ()
    return (Tensor(name, (E,), components.ROUTER, Role.ADDED, group.repeat, group.layers),)


def sparse_layers(
    config: Mapping[str, Any], num_layers: int, otherwise: Callable[[int], bool]
) -> Callable[[int], bool]:
    """Whether layer i has experts, as `mlp_layer_types` says, or ``otherwise`` of its number."""
    kinds = layer_kinds(
        config,
        "mlp_layer_types",
        num_layers,
        ("sparse", "dense"),
        lambda i: "sparse" if otherwise(i) else "dense",
    )
    return lambda i: kinds[i] == "sparse"


def shared_expert(
    prefix: str, group: LayerGroup | None, *, width: Polynomial, bias: bool = False
) -> tuple[Tensor, ...]:
    """``prefix.{gate,up,down}_proj`` of the expert that every token uses."""
    if group is None:
        return ()
    tensors = gated_feed_forward(
        prefix, width=width, bias=bias, repeat=group.repeat, layers=group.layers
    )
    return tuple(replace(tensor, component=components.SHARED_EXPERT) for tensor in tensors)


def routed_fields(config: Mapping[str, Any]) -> tuple[str, str, str]:
    """The fields of E, e and m as DeepSeek calls them; the first has a second name."""
    total = field_name(config, "n_routed_experts", "num_local_experts")
    return (total, "num_experts_per_tok", "moe_intermediate_size")


@dataclass(frozen=True)
class SparseFeedForward:
    """The feed-forward of all layers, its symbols, and the buffers of its routers."""

    tensors: tuple[Tensor, ...]
    symbols: dict[str, int]
    buffers: tuple[Tensor, ...]


def sparse_feed_forward(
    config: Mapping[str, Any],
    prefix: str,
    split: LayerSplit,
    experts: tuple[int, int | None, int],
    *,
    fields: tuple[str, str, str] = ("num_experts", "num_experts_per_tok", "moe_intermediate_size"),
    router: str = "gate",
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    shared: tuple[str, str, int] | None = None,
    correction: str = "",
    bias: bool = False,
) -> SparseFeedForward:
    """Dense layers, and those with the ``experts`` (in all, active, width) unless ``fields`` say others.

    ``shared`` is what the one of all shared experts is called, the field with their number, and that by
    default; ``correction`` the name of a buffer of the router, as DeepSeek-V3 has it.
    """
    symbols = dict(split.symbols)
    count = 0
    if split.experts:
        total, active, width = fields
        symbols |= read_experts(
            config,
            layers=split.expert_layers,
            total=total,
            active=active,
            width=width,
            defaults=experts,
        )
        count = whole_number(config, shared[1], shared[2]) if shared else 0
    name = shared[0] if shared else ""
    return SparseFeedForward(
        (
            *dense_feed_forward(prefix, split.dense, bias=bias),
            *routed_experts(prefix, split.experts, router=router, names=names),
            *shared_expert(
                f"{prefix}.{name}", split.experts if count else None, width=count * m, bias=bias
            ),
        ),
        symbols,
        correction_bias(f"{prefix}.{correction}", split.experts) if correction else (),
    )
