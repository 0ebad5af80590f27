"""Active parameters of an undeclared mixture of experts, from the fields of its configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minilm.inspection.names import is_routed
from minilm.inspection.report import TensorRow

# The fields of many architectures for the number of experts, and for how many a token uses.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_ACTIVE_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_top_k")


def active_elements(
    rows: Iterable[TensorRow], config: Mapping[str, Any], metadata: Mapping[str, str]
) -> int | None:
    """Parameters that one token uses; None where there are experts and their number is not given.

    ``config`` is a config.json, ``metadata`` that of a GGUF file; either may be empty.
    """
    rows = tuple(rows)
    total = sum(row.count for row in rows)
    routed = sum(row.count for row in rows if is_routed(row.name))
    if not routed:
        return total
    numbers = _from_metadata(metadata) or _from_config(config)
    if numbers is None:
        return None
    num_experts, num_active = numbers
    return total - routed + routed * num_active // num_experts


def _from_config(config: Mapping[str, Any]) -> tuple[int, int] | None:
    for fields in (config, config.get("text_config")):
        if isinstance(fields, Mapping):
            experts = next((fields[key] for key in _EXPERTS if key in fields), None)
            active = next((fields[key] for key in _ACTIVE_EXPERTS if key in fields), None)
            if type(experts) is int and type(active) is int and 0 < active <= experts:
                return experts, active
    return None


def _from_metadata(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    architecture = metadata.get("general.architecture", "")
    experts = metadata.get(f"{architecture}.expert_count", "")
    active = metadata.get(f"{architecture}.expert_used_count", "")
    if not experts.isdecimal() or not active.isdecimal() or not 0 < int(active) <= int(experts):
        return None
    return int(experts), int(active)
