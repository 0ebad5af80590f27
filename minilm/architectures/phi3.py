"""Phi-3 and Phi-4 as transformers stores them: Llama with query, key, value fused, and gate with up.

Names, shapes and defaults: huggingface/transformers `models/phi3/configuration_phi3.py` and
`modeling_phi3.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    attention_kinds,
    d,
    f,
    fused_attention,
    linear,
    window_size,
)
from minilm.architectures.conversion import Importable
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.shared_fields import Fields, read_gated, read_rotary_dim
from minilm.ledger import components
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(32064, 32, (3072, 32, None, None), 8192, 4096)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Phi3ForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS, rounds=True)
    first, second = pre_norms()
    return decoder(
        config,
        _DEFAULTS,
        heads,
        first,
        *fused_attention(f"{ATTENTION}.qkv_proj", f"{ATTENTION}.o_proj", heads),
        second,
        *linear(f"{MLP}.gate_up_proj", 2 * f, d, components.FEED_FORWARD_GATE_UP),
        *linear(f"{MLP}.down_proj", d, f, components.FEED_FORWARD_DOWN),
        attention=attention_kinds(heads, num_layers, num_layers, window_size(config, 0)),
    )


def _minilm_fields(fields: Fields) -> dict[str, Any]:
    return {**read_gated(fields), "rotary_dim": read_rotary_dim(fields, layout(fields), 1.0)}


IMPORTABLE = (Importable("phi3", layout, _minilm_fields),)
