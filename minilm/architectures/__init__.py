"""One file an architecture: a configuration in, the Layout of its real tensors out."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.config_fields import sub_config
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.task_heads import WITH_ENCODERS, class_name_of
from minilm.errors import ConfigError
from minilm.ledger.layout import Layout


def larger_fields(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of a config.json that say that it is of a larger model than the declared one."""
    entry = MODEL_TYPES[config["model_type"]]
    return tuple(name for name in entry.larger if config.get(name) is not None)


def layout_of(config: Mapping[str, Any]) -> Layout:
    """The tensors of a config.json whose model_type is in MODEL_TYPES.

    Raises ConfigError where a field cannot be. Only the module that declares it is imported: start-up
    stays fast however many there are.
    """
    entry = MODEL_TYPES[config["model_type"]]
    for name in larger_fields(config):
        raise ConfigError(f"config.json: {name}", shortened(config[name]), "null or no such field")
    is_whole = bool(entry.whole) and class_name_of(config).endswith(WITH_ENCODERS)
    module = import_module(f"{__name__}.{entry.whole if is_whole else entry.module}")
    if entry.text_of and not is_whole:
        fields = {**sub_config(config, "text_config"), "model_type": entry.text_of}
    else:
        fields = {**config, "model_type": entry.same_as or config["model_type"]}
    layout: Layout = module.layout(fields)
    return layout
