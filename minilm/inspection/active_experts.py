"""Active parameters of an undeclared mixture of experts, from the fields of its configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minilm.formats.header import whole_number
from minilm.inspection.names import is_routed
from minilm.inspection.report import TensorRow
from minilm.ledger.layout import Layout

# The fields of many architectures for the number of experts, and for how many a token uses: of transformers
# 5.23's configurations, and DBRX's and Hunyuan's own. The objects that some keep them in, besides the whole.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_ACTIVE_EXPERTS = (
    *("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_top_k", "moe_topk"),
    *("top_k_experts", "num_selected_experts", "experts_per_token"),
)
_NESTED = ("text_config", "ffn_config")
ALL_ACTIVE = "how many experts a token uses is not given: active is the total"


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


def are_all_active(layout: Layout, config: Mapping[str, Any]) -> bool:
    """Whether a model has experts of which neither its type nor ``config`` says how many a token uses."""
    experts, active = (layout.symbols.get(letter, 0) for letter in "Ee")
    has_routed = any(tensor.routed for tensor in layout.tensors)
    return has_routed and experts == active > 1 and _from_config(config) is None


def _from_config(config: Mapping[str, Any]) -> tuple[int, int] | None:
    for fields in (config, *(config.get(name) for name in _NESTED)):
        if isinstance(fields, Mapping):
            experts = _of_every_layer(fields, _EXPERTS)
            active = _of_every_layer(fields, _ACTIVE_EXPERTS)
            if type(experts) is int and type(active) is int and 0 < active <= experts:
                return experts, active
    return None


def _of_every_layer(fields: Mapping[str, Any], keys: Iterable[str]) -> object:
    """The first field that is there: a number, or a list that gives every layer the same one."""
    value = next((fields[key] for key in keys if fields.get(key) is not None), None)
    if isinstance(value, list) and value and all(number == value[0] for number in value):
        return value[0]
    return value


def _from_metadata(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    architecture = metadata.get("general.architecture", "")
    experts = whole_number(metadata, f"{architecture}.expert_count")
    active = whole_number(metadata, f"{architecture}.expert_used_count")
    if experts is None or active is None or not 0 < active <= experts:
        return None
    return experts, active
