"""How many experts a token uses where no family declares the model: what its configuration says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minilm.formats.header import Header
from minilm.inspection.names import is_routed
from minilm.inspection.report import TensorRow

# All experts, and those that a token uses, as the configurations of many architectures call them.
_ALL = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_USED = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_top_k")


def active_elements(
    rows: Iterable[TensorRow], config: Mapping[str, Any], header: Header | None
) -> int | None:
    """Parameters that one token uses; None where there are experts and nobody says how many."""
    rows = tuple(rows)
    total = sum(row.count for row in rows)
    routed = sum(row.count for row in rows if is_routed(row.name))
    if not routed:
        return total
    known = _in_metadata(header.metadata) if header is not None else None
    known = known or _in_config(config)
    if known is None:
        return None
    experts, used = known
    return total - routed + routed * used // experts


def _in_config(config: Mapping[str, Any]) -> tuple[int, int] | None:
    for part in (config, config.get("text_config")):
        if isinstance(part, Mapping):
            experts = next((part[key] for key in _ALL if key in part), None)
            used = next((part[key] for key in _USED if key in part), None)
            if type(experts) is int and type(used) is int and 0 < used <= experts:
                return experts, used
    return None


def _in_metadata(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """GGUF's own words for it."""
    architecture = metadata.get("general.architecture", "")
    experts = metadata.get(f"{architecture}.expert_count", "")
    used = metadata.get(f"{architecture}.expert_used_count", "")
    if not experts.isdecimal() or not used.isdecimal() or not 0 < int(used) <= int(experts):
        return None
    return int(experts), int(used)
