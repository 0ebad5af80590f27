"""Sliding windows: which layers attend to how much, from a config's `layer_types` and `sliding_window`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import Heads
from minilm.architectures.config_fields import whole
from minilm.errors import ConfigError
from minilm.ledger.layout import AttentionSpec
from minilm.ledger.symbols import as_polynomial

_SLIDES = {"sliding_attention": True, "full_attention": False}


def window_size(config: Mapping[str, Any], default: int) -> int:
    """How many tokens a sliding layer sees; 0, also written null, for all."""
    if config.get("sliding_window", default) is None:
        return 0
    return whole(config, "sliding_window", default)


def sliding_layers(
    config: Mapping[str, Any], num_layers: int, otherwise: Callable[[int], bool]
) -> int:
    """How many layers slide, as `layer_types` says, or ``otherwise`` of a layer's number."""
    types = config.get("layer_types")
    if types is None:
        return sum(otherwise(i) for i in range(num_layers))
    if not isinstance(types, list) or len(types) != num_layers:
        raise ConfigError("config.json: layer_types", shortened(types), f"{num_layers} names")
    for name in types:
        if not isinstance(name, str) or name not in _SLIDES:
            raise ConfigError(
                "config.json: layer_types", shortened(name), f"one of {', '.join(_SLIDES)}"
            )
    return sum(_SLIDES[name] for name in types)


def attention_kinds(
    heads: Heads, num_layers: int, sliding: int, window: int
) -> tuple[AttentionSpec, ...]:
    """What the attention costs when ``sliding`` of the layers see ``window`` tokens, the rest all."""
    if not window or not sliding:
        return (heads.attention(),)
    if sliding == num_layers:
        return (heads.attention(window=window),)
    return (
        heads.attention(layers=as_polynomial(sliding), window=window),
        heads.attention(layers=as_polynomial(num_layers - sliding)),
    )
