"""ERNIE 4.5 with experts as transformers stores it: a correction bias that is a parameter.

Names, shapes and defaults: huggingface/transformers `models/ernie4_5_moe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import E, separate_attention
from minilm.architectures.config_fields import field_name, flag, size, whole_number
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.moe import sparse_feed_forward, split_layers
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE

_DEFAULTS = Defaults(
    103424, 28, (2560, 20, 4, None), 12288, 131072, tied=True, experts=(64, 6, 1536)
)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Ernie4_5_MoeForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    first = whole_number(config, "moe_layer_start_index", 1)
    step = size(config, "moe_layer_interval", 1)
    has_end = config.get("moe_layer_end_index") not in (None, -1)
    last = whole_number(config, "moe_layer_end_index", 0) if has_end else num_layers - 1
    split = split_layers(num_layers, lambda i: (i + 1) % step == 0 and first <= i <= last)
    bias = flag(config, "use_bias", False)
    sparse = sparse_feed_forward(
        config,
        MLP,
        split,
        _DEFAULTS.experts,
        fields=(
            field_name(config, "moe_num_experts", "num_experts"),
            field_name(config, "moe_k", "num_experts_per_tok"),
            "moe_intermediate_size",
        ),
        shared=("shared_experts", "moe_num_shared_experts", 2),
        bias=bias,
    )
    correction: tuple[Tensor, ...] = ()
    if split.experts:
        name, group = f"{MLP}.moe_statics.e_score_correction_bias", split.experts
        part = components.ROUTER
        correction = (Tensor(name, (ONE, E), part, Role.ADDED, group.repeat, group.layers),)
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *sparse.tensors,
        *correction,
        symbols=sparse.symbols,
        head_bias=bias,
    )
