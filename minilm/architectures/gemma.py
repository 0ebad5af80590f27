"""Gemma 1, 2 and 3 (text) and VaultGemma as transformers stores them: wide heads, GeGLU, a tied head.

Gemma 2 puts a norm behind attention and feed-forward too, and lets every second layer slide; Gemma 3
normalises each query and key head, and five layers in six slide. VaultGemma is Gemma 2 without the
norms behind. Names, shapes and defaults: huggingface/transformers
`models/{gemma,gemma2,gemma3,vaultgemma}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    Heads,
    attention_kinds,
    embedding,
    gated_feed_forward,
    k,
    lm_head,
    norm,
    read_heads,
    separate_attention,
    sliding_layers,
    window_size,
)
from minilm.architectures.config_fields import flag, layers, size
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Tensor
from minilm.ledger.symbols import ONE


@dataclass(frozen=True)
class _Defaults:
    vocabulary: int
    layers: int
    feed_forward: int
    heads: tuple[int, int, int, int]
    context: int


_DEFAULTS = {
    "gemma": _Defaults(256000, 28, 24576, (3072, 16, 16, 256), 8192),
    "gemma2": _Defaults(256000, 26, 9216, (2304, 8, 4, 256), 8192),
    "vaultgemma": _Defaults(256000, 26, 9216, (2304, 8, 4, 256), 8192),
    "gemma3_text": _Defaults(262208, 26, 9216, (2304, 8, 4, 256), 131072),
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Gemma{,2,3}ForCausalLM and VaultGemmaForCausalLM for a config.json."""
    family = config["model_type"]
    defaults = _DEFAULTS[family]
    heads = read_heads(config, defaults=defaults.heads)
    num_layers = layers(config, "num_hidden_layers", defaults.layers)
    tied = flag(config, "tie_word_embeddings", True)
    symbols = {
        "V": size(config, "vocab_size", defaults.vocabulary),
        "L": num_layers,
        "f": size(config, "intermediate_size", defaults.feed_forward),
        **heads.symbols,
    }
    tensors = (
        embedding("model.embed_tokens"),
        *_block("model.layers.{i}", config, heads),
        *norm("model.norm", components.FINAL_NORM, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        family,
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        attention=_attention_kinds(config, heads, num_layers),
        context_length=size(config, "max_position_embeddings", defaults.context),
    )


def _block(block: str, config: Mapping[str, Any], heads: Heads) -> tuple[Tensor, ...]:
    family = config["model_type"]
    bias = flag(config, "attention_bias", False)
    attention = separate_attention(f"{block}.self_attn", heads, qkv_bias=bias, output_bias=bias)
    first_norm = norm(f"{block}.input_layernorm", components.ATTENTION_NORM)
    if family == "gemma":
        return (
            *first_norm,
            *attention,
            *norm(f"{block}.post_attention_layernorm", components.FEED_FORWARD_NORM),
            *gated_feed_forward(f"{block}.mlp"),
        )
    if family == "vaultgemma":
        return (
            *first_norm,
            *attention,
            *norm(f"{block}.pre_feedforward_layernorm", components.FEED_FORWARD_NORM),
            *gated_feed_forward(f"{block}.mlp"),
        )
    query_key_norms = (
        *norm(f"{block}.self_attn.q_norm", components.ATTENTION_QK_NORM, width=k),
        *norm(f"{block}.self_attn.k_norm", components.ATTENTION_QK_NORM, width=k),
    )
    return (
        *first_norm,
        *attention,
        *(query_key_norms if family == "gemma3_text" else ()),
        *norm(f"{block}.post_attention_layernorm", components.ATTENTION_OUTPUT_NORM),
        *norm(f"{block}.pre_feedforward_layernorm", components.FEED_FORWARD_NORM),
        *gated_feed_forward(f"{block}.mlp"),
        *norm(f"{block}.post_feedforward_layernorm", components.FEED_FORWARD_OUTPUT_NORM),
    )


def _attention_kinds(
    config: Mapping[str, Any], heads: Heads, num_layers: int
) -> tuple[AttentionSpec, ...]:
    if config["model_type"] == "gemma":
        return (heads.attention(),)
    # The last of each group of layers sees everything.
    group = 2
    if config["model_type"] == "gemma3_text":
        group = size(config, "sliding_window_pattern", 6)
    sliding = sliding_layers(config, num_layers, lambda i: (i + 1) % group != 0)
    return attention_kinds(heads, num_layers, sliding, window_size(config, 4096))
