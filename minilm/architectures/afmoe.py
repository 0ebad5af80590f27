"""Arcee's Trinity (AFMoE) as transformers stores it: a gate on attention's output, four norms, windows.

The last of each four layers sees everything. The first layers are dense; the routers' bias is a
parameter. Names, shapes and defaults: huggingface/transformers `models/afmoe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    attention_kinds,
    d,
    linear,
    norm,
    separate_attention,
    sliding_layers,
    window_size,
)
from minilm.architectures.config_fields import field_name, flag, size_or_null, whole_number
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    post_norms,
    query_key_norms,
)
from minilm.architectures.moe import correction_bias, sparse_feed_forward, split_layers
from minilm.ledger import components
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(
    200192, 32, (2048, 16, None, 128), 6144, 16384, experts=(64, 6, 1408), window=1024
)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of AfmoeForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    first = whole_number(config, "num_dense_layers", 1)
    split = split_layers(num_layers, lambda i: i >= first)
    total = field_name(config, "num_experts", "num_local_experts")
    sparse = sparse_feed_forward(
        config,
        MLP,
        split,
        _DEFAULTS.experts,
        fields=(total, "num_experts_per_tok", "moe_intermediate_size"),
        router="router.gate",
        shared=("shared_experts", "num_shared_experts", 2),
    )
    period = size_or_null(config, "global_attn_every_n_layers", 4)
    sliding = sliding_layers(config, num_layers, lambda i: (i + 1) % period != 0)
    bias = flag(config, "attention_bias", False)
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *norm(f"{BLOCK}.input_layernorm", components.ATTENTION_NORM),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *query_key_norms(),
        *linear(f"{ATTENTION}.gate_proj", heads.queries, d, components.ATTENTION_GATE),
        *norm(f"{BLOCK}.pre_mlp_layernorm", components.FEED_FORWARD_NORM),
        *sparse.tensors,
        *correction_bias(f"{MLP}.expert_bias", split.experts),
        *post_norms(f"{BLOCK}.post_attention_layernorm", f"{BLOCK}.post_mlp_layernorm"),
        symbols=sparse.symbols,
        attention=attention_kinds(
            heads, num_layers, sliding, window_size(config, _DEFAULTS.window)
        ),
    )
