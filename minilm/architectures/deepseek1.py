"""DeepSeekMoE (the first): Llama's attention, and routed experts beside shared ones.

Names, shapes and defaults: deepseek-ai/deepseek-moe-16b-base `modeling_deepseek.py` and
`configuration_deepseek.py`, as ml-explore/mlx-lm `models/deepseek.py` has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import separate_attention
from minilm.architectures.config_fields import flag, size, whole_number
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.moe import (
    routed_fields,
    sparse_feed_forward,
    sparse_layers,
    split_layers,
)
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(102400, 30, (4096, 32, 32, None), 11008, experts=(64, None, 1407))


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of DeepseekForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS, head_dim=None)
    bias = flag(config, "attention_bias", False)
    first = whole_number(config, "first_k_dense_replace", 0)
    frequency = size(config, "moe_layer_freq", 1)
    routes = config.get("n_routed_experts") is not None
    sparse_at = sparse_layers(config, num_layers, lambda i: i >= first and i % frequency == 0)
    split = split_layers(num_layers, lambda i: routes and sparse_at(i))
    sparse = sparse_feed_forward(
        config,
        MLP,
        split,
        _DEFAULTS.experts,
        fields=routed_fields(config),
        shared=("shared_experts", "n_shared_experts", 0),
        bias=flag(config, "mlp_bias", False),
    )
    layout = decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *sparse.tensors,
        symbols=sparse.symbols,
    )
    return replace(layout, ignored=(f"{ATTENTION}.rotary_emb.inv_freq",))
