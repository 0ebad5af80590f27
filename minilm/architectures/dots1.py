"""dots.llm1 as transformers stores it: Qwen3's attention and DeepSeek-V3's experts.

Names, shapes and defaults: huggingface/transformers `models/dots1`, whose configuration class gives no
number of experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    attention_kinds,
    separate_attention,
    sliding_layers,
    window_size,
)
from minilm.architectures.config_fields import flag, size, whole_number, whole_number_or_null
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
    query_key_norms,
)
from minilm.architectures.moe import routed_fields, sparse_feed_forward, split_layers
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(152064, 62, (4608, 32, 32, None), 10944, window=4096)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Dots1ForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    first = whole_number(config, "first_k_dense_replace", 0)
    split = split_layers(num_layers, lambda i: i >= first)
    fields = routed_fields(config)
    sparse = sparse_feed_forward(
        config,
        MLP,
        split,
        (size(config, fields[0]) if split.experts else 0, None, 1408),
        fields=fields,
        shared=("shared_experts", "n_shared_experts", 0),
        correction="gate.e_score_correction_bias",
    )
    bias = flag(config, "attention_bias", False)
    window = window_size(config, _DEFAULTS.window)
    full = whole_number_or_null(config, "max_window_layers", 62)
    sliding = sliding_layers(config, num_layers, lambda i: bool(window) and i >= full)
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *query_key_norms(),
        *sparse.tensors,
        symbols=sparse.symbols,
        buffers=sparse.buffers,
        attention=attention_kinds(heads, num_layers, sliding, window),
    )
