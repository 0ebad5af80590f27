"""EXAONE 4 and its mixture of experts as transformers stores them: three layers in four slide.

Each query and key head is normalised. EXAONE 4 normalises what attention and feed-forward put out; the
one with experts what goes in, and its experts are DeepSeek-V3's. Names, shapes and defaults:
huggingface/transformers `models/{exaone4,exaone_moe}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    attention_kinds,
    gated_feed_forward,
    separate_attention,
    sliding_layers,
    window_size,
)
from minilm.architectures.config_fields import whole_number, whole_number_or_null
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    post_norms,
    pre_norms,
    query_key_norms,
)
from minilm.architectures.moe import sparse_feed_forward, sparse_layers, split_layers
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(102400, 32, (4096, 32, 32, None), 16384, experts=(64, 8, 1024), window=4096)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Exaone4 and ExaoneMoeForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    window = window_size(config, _DEFAULTS.window)
    pattern = config.get("sliding_window_pattern", 4)
    if isinstance(pattern, str) and pattern and set(pattern) <= {"L", "G"}:  # local and global
        sliding = sliding_layers(config, num_layers, lambda i: pattern[i % len(pattern)] == "L")
    else:
        period = whole_number_or_null(config, "sliding_window_pattern", 4)
        sliding = sliding_layers(config, num_layers, lambda i: bool(period and (i + 1) % period))
    attention = (*separate_attention(ATTENTION, heads), *query_key_norms())
    kinds = attention_kinds(heads, num_layers, sliding, window)
    if config["model_type"] == "exaone4":
        return decoder(
            config,
            _DEFAULTS,
            heads,
            *attention,
            *gated_feed_forward(MLP),
            *post_norms(f"{BLOCK}.post_attention_layernorm", f"{BLOCK}.post_feedforward_layernorm"),
            attention=kinds,
        )
    first = whole_number(config, "first_k_dense_replace", 1)
    sparse = sparse_feed_forward(
        config,
        MLP,
        split_layers(num_layers, sparse_layers(config, num_layers, lambda i: i >= first)),
        _DEFAULTS.experts,
        shared=("shared_experts", "num_shared_experts", 1),
        correction="e_score_correction_bias",
    )
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *attention,
        *sparse.tensors,
        symbols=sparse.symbols,
        attention=kinds,
        buffers=sparse.buffers,
    )
