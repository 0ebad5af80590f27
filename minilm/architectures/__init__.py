"""One file an architecture: a configuration in, the Layout of its real tensors out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.config_fields import sub_config, with_canonical_names
from minilm.architectures.model_types import MODEL_TYPES, ModelType
from minilm.architectures.task_heads import (
    CAUSAL,
    UndeclaredClassError,
    class_name_of,
    with_task_head,
)
from minilm.errors import ConfigError
from minilm.ledger.layout import Layout

_PART = re.compile(r"(Text|Vision|Audio)Model(?:WithProjection)?\Z|(Text)For\w+\Z")


def foreign_fields(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of a config.json that say that it is of another model than the declared one."""
    entry = MODEL_TYPES[config["model_type"]]
    return tuple(name for name in entry.foreign if config.get(name) is not None)


def layout_of(config: Mapping[str, Any]) -> Layout:
    """The tensors of a config.json whose model_type is in MODEL_TYPES.

    Raises ConfigError where a field cannot be. Only the module that declares it is imported: start-up
    stays fast however many there are.
    """
    entry = MODEL_TYPES[config["model_type"]]
    for name in foreign_fields(config):
        raise ConfigError(f"config.json: {name}", shortened(config[name]), "null or no such field")
    config = with_canonical_names(config)
    whole = is_whole(entry, config)
    module = import_module(f"{__name__}.{entry.whole if whole else entry.module}")
    if entry.text_of and not whole:
        fields = {**sub_config(config, "text_config", entry.text_of), "model_type": entry.text_of}
    else:
        fields = {**config, "model_type": entry.same_as or config["model_type"]}
    layout: Layout = module.layout(fields)
    return layout


def layout_of_class(config: Mapping[str, Any]) -> Layout | None:
    """`layout_of` as the class that `architectures` names; None for one that is not declared."""
    entry = MODEL_TYPES[config["model_type"]]
    named = class_name_of(config)
    if found := _PART.search(named):
        part = (found[1] or found[2]).lower()
        if not config["model_type"].removesuffix("_model").endswith(part):
            return _layout_of_part(config, part)
    is_text = named.endswith(CAUSAL) and "text_config" in config and not entry.text_of
    if is_text and _type_of_part(config, "text"):  # as Gemma3ForCausalLM
        return _layout_of_part(config, "text")
    try:
        layout = layout_of(config)
    except UndeclaredClassError:
        return None
    whole = is_whole(entry, config)
    if entry.by_class and (whole or not entry.whole):
        return layout
    alone = (entry.causal_only or bool(entry.text_of)) and not whole
    return with_task_head(layout, config, causal_only=alone)


def _layout_of_part(config: Mapping[str, Any], part: str) -> Layout | None:
    """That of one tower or of the text, as its class is loaded from a whole model's config.json."""
    kind = _type_of_part(config, part)
    if kind is None:
        return None
    fields = sub_config(config, f"{part}_config", kind)
    own = {"model_type": kind, "architectures": config["architectures"]}
    return layout_of_class({**fields, **own})


def _type_of_part(config: Mapping[str, Any], part: str) -> str | None:
    names = (f"{config['model_type']}_{part}_model", f"{config['model_type']}_{part}")
    return next((name for name in names if name in MODEL_TYPES), None)


def is_whole(entry: ModelType, config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of the larger model, by the class that it names."""
    name = class_name_of(config)
    return bool(entry.whole) and bool(name) and not name.endswith(CAUSAL)
