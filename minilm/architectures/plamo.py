"""PLaMo (1): parallel blocks with one norm; a key and value serves `n_shared_head` heads.

Names, shapes and defaults: pfnet/plamo-13b `modeling_plamo.py`, as ml-explore/mlx-lm `models/plamo.py` and
llama.cpp `tensor_mapping.py` (plamo) have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    gated_feed_forward,
    norm,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import size
from minilm.architectures.decoder import Defaults, decoder
from minilm.ledger import components
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(32000, 32, (4096, 32, None, None), 13312)
_BLOCK = "model.layers.layers.{i}"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of PlamoForCausalLM for a config.json."""
    num_heads = size(config, "num_attention_heads", _DEFAULTS.heads[1])
    shared = -(-num_heads // size(config, "n_shared_head", 8))
    fields = {**config, "num_key_value_heads": shared}
    heads = read_heads(fields, head_dim=None, defaults=_DEFAULTS.heads)
    layout = decoder(
        config,
        _DEFAULTS,
        heads,
        *norm(f"{_BLOCK}.norm", components.ATTENTION_NORM),
        *separate_attention(f"{_BLOCK}.self_attn", heads),
        *gated_feed_forward(f"{_BLOCK}.mlp"),
    )
    return replace(layout, ignored=(f"{_BLOCK}.self_attn.rotary_emb.inv_freq",))
