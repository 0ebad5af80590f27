"""Multi-token prediction modules as DeepSeek-V3's files hold them: as layers L and after.

Each has its copies of embedding and head, two norms, a projection, and one more layer like the last.
Names: deepseek-ai/DeepSeek-V3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import V, d
from minilm.architectures.config_fields import layers, whole_number_or_null
from minilm.architectures.moe import LARGEST_EXPERT_COUNT
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, symbol

N = symbol("N")


def with_mtp(
    layout: Layout, config: Mapping[str, Any], name: str, default: int, *, has_tables: bool = True
) -> Layout:
    """``layout`` with as many such modules as the field says; their tensors are optional and not counted.

    Where not ``has_tables``, they use the model's embedding and head.
    """
    number = whole_number_or_null(config, name, default)
    if not number:
        return layout
    layers({name: number}, name)
    check_expert_layers(layout, number)
    num_layers = layout.symbols["L"]
    at = range(num_layers, num_layers + number)

    def tensor(name: str, role: Role, *shape: Polynomial) -> Tensor:
        return Tensor(f"model.layers.{{i}}.{name}.weight", shape, components.MTP, role, N, at)

    def own(tensor: Tensor) -> bool:
        """An indexer, which a module has though the last layer may share that of another."""
        return tensor.component == components.ATTENTION_INDEXER

    last = [
        replace(each, component=components.MTP, repeat=N, layers=at)
        for each in (*layout.tensors, *layout.buffers)
        if each.repeat != ONE
        and (each.layers is None or num_layers - 1 in each.layers or own(each))
    ]
    module = (
        *((tensor("embed_tokens", Role.LOOKED_UP, V, d),) if has_tables else ()),
        tensor("enorm", Role.SCALED, d),
        tensor("hnorm", Role.SCALED, d),
        tensor("eh_proj", Role.MULTIPLIED, d, 2 * d),
        *last,
        tensor("shared_head.norm", Role.SCALED, d),
        *((tensor("shared_head.head", Role.MULTIPLIED, V, d),) if has_tables else ()),
    )
    return replace(layout, mtp=module, symbols={**layout.symbols, "N": number})


def check_expert_layers(layout: Layout, number: int) -> None:
    """Raise ConfigError where as many more layers would have too many experts to list."""
    experts = layout.symbols.get("E", 0)
    if number * experts > LARGEST_EXPERT_COUNT:
        raise ConfigError(
            "config.json: n_routed_experts",
            f"{experts} in each of {number} more layers",
            f"at most {LARGEST_EXPERT_COUNT} experts in all",
        )
