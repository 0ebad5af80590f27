"""SmallThinker: experts in every layer, whose router sees what stands before attention; some layers slide.

Names, shapes and defaults: PowerInfer/SmallThinker-4BA0.6B-Instruct `modeling_smallthinker.py` and
`configuration_smallthinker.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import attention_kinds, separate_attention
from minilm.architectures.config_fields import listed, size
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.moe import sparse_feed_forward, split_layers
from minilm.errors import ConfigError
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(
    151936, 32, (1536, 12, 2, 128), context=131072, tied=True, experts=(32, 4, 768), window=4096
)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of SmallThinkerForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    sparse = sparse_feed_forward(
        config,
        f"{BLOCK}.block_sparse_moe",
        split_layers(num_layers, lambda i: True),
        _DEFAULTS.experts,
        fields=(
            "moe_num_primary_experts",
            "moe_num_active_primary_experts",
            "moe_ffn_hidden_size",
        ),
        router="primary_router",
        names=("gate", "up", "down"),
    )
    window = size(config, "sliding_window_size", _DEFAULTS.window)
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *separate_attention(ATTENTION, heads),
        *sparse.tensors,
        symbols=sparse.symbols,
        attention=attention_kinds(heads, num_layers, _sliding(config, num_layers), window),
    )


def _sliding(config: Mapping[str, Any], num_layers: int) -> int:
    """How many layers slide: those listed; in llama.cpp, whose files list none, three in four of a window."""
    name = "sliding_window_layout"
    if config.get(name) is None:
        return num_layers - -(-num_layers // 4) if config.get("sliding_window") else 0
    flags = listed(config, name, (), num_layers)
    if any(type(each) is not int for each in flags):
        raise ConfigError(f"config.json: {name}", shortened(flags), f"{num_layers} of 0 and 1")
    return sum(each == 1 for each in flags)
