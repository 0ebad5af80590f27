"""Mixtral, Phi-3.5-MoE and MiniMax-M2 as their files store them: E experts in every layer, e for a token.

Mixtral is Mistral otherwise. Phi's norms are LayerNorms with biases. MiniMax-M2 normalises all queries
and all keys of a token at once, and its router has DeepSeek-V3's correction bias. Names:
mistralai/Mixtral-8x7B-v0.1 (`block_sparse_moe`, w1 gate, w3 up, w2 down). Defaults:
huggingface/transformers `models/{mixtral,phimoe,minimax_m2}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import attention_kinds, separate_attention, window_size
from minilm.architectures.config_fields import field_name, flag
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
    query_key_norms,
)
from minilm.architectures.moe import sparse_feed_forward, split_layers
from minilm.ledger.layout import Layout

_DEFAULTS = {
    "mixtral": Defaults(32000, 32, (4096, 32, 8, None), context=131072, experts=(8, 2, 14336)),
    "phimoe": Defaults(32064, 32, (4096, 32, 8, None), context=131072, experts=(16, 2, 6400)),
    "minimax_m2": Defaults(200064, 62, (3072, 48, 8, 128), context=196608, experts=(256, 8, 1536)),
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Mixtral, Phimoe and MiniMaxM2ForCausalLM for a config.json."""
    family = config["model_type"]
    defaults = _DEFAULTS[family]
    is_phi, is_minimax = family == "phimoe", family == "minimax_m2"
    heads, num_layers = heads_and_layers(config, defaults)
    total = field_name(config, "num_local_experts", "num_experts")
    sparse = sparse_feed_forward(
        config,
        f"{BLOCK}.block_sparse_moe",
        split_layers(num_layers, lambda i: True),
        defaults.experts,
        fields=(total, "num_experts_per_tok", "intermediate_size"),
        names=("w1", "w3", "w2"),
        correction="e_score_correction_bias" if is_minimax else "",
    )
    symbols = sparse.symbols
    if is_phi:
        symbols["e"] = min(2, symbols["E"])  # its router takes two, whatever is said
    bias = is_phi and flag(config, "attention_bias", False)
    window = 0 if is_minimax else window_size(config, 0)
    return decoder(
        config,
        defaults,
        heads,
        *pre_norms(bias=is_phi),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *(query_key_norms(widths=(heads.queries, heads.keys)) if is_minimax else ()),
        *sparse.tensors,
        symbols=symbols,
        buffers=sparse.buffers,
        attention=attention_kinds(heads, num_layers, num_layers, window),
        norm_bias=is_phi,
        head_bias=is_phi and flag(config, "lm_head_bias", False),
    )
