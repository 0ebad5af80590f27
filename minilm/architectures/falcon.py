"""Falcon as transformers stores it: fused query-key-value, blocks mostly parallel, a tied head.

Names, shapes and defaults: huggingface/transformers `models/falcon/configuration_falcon.py` and
`modeling_falcon.py`. 7B has one key and value for all heads; the "new decoder" (40B, 180B, 11B) has
groups, and a norm each for attention and feed-forward unless the config asks for one. As `RefinedWeb`,
the name of the 40B before transformers had it, the config does not say that it is new
(tiiuae/falcon-40b `modelling_RW.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    embedding,
    feed_forward,
    feed_forward_width,
    fused_attention,
    lm_head,
    norm,
    read_heads,
)
from minilm.architectures.config_fields import (
    field_name,
    flag,
    layers,
    optional_flag,
    size,
    size_or_null,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor
from minilm.ledger.symbols import ONE

_BLOCK = "transformer.h.{i}"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of FalconForCausalLM, and of RWForCausalLM before it, for a config.json."""
    if config["model_type"] == "RefinedWeb":
        own = {"new_decoder_architecture": True, "num_kv_heads": config.get("n_head_kv")}
        return replace(layout({**config, **own, "model_type": "falcon"}), family="RefinedWeb")
    heads = _heads(config)
    bias = flag(config, "bias", False)
    inner = size_or_null(config, "ffn_hidden_size", 4 * heads.symbols["d"])
    tied = flag(config, "tie_word_embeddings", True)
    symbols = {
        "V": size(config, "vocab_size", 65024),
        "L": layers(config, field_name(config, "num_hidden_layers", "n_layer"), 32),
        "f": inner,
        **heads.symbols,
    }
    attention, mlp = f"{_BLOCK}.self_attention", f"{_BLOCK}.mlp"
    tensors = (
        embedding("transformer.word_embeddings"),
        *_norms(config),
        *fused_attention(f"{attention}.query_key_value", f"{attention}.dense", heads, bias=bias),
        *feed_forward(
            f"{mlp}.dense_h_to_4h",
            f"{mlp}.dense_4h_to_h",
            feed_forward_width(inner, heads.symbols["d"]),
            bias=bias,
        ),
        *norm("transformer.ln_f", components.FINAL_NORM, bias=True, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        "falcon",
        tensors,
        symbols,
        ties=(("lm_head.weight", "transformer.word_embeddings.weight"),) if tied else (),
        ignored=(f"{attention}.rotary_emb.inv_freq",),
        attention=(heads.attention(),),
        context_length=size(config, "max_position_embeddings", 2048),
    )


def _heads(config: Mapping[str, Any]) -> Heads:
    """Groups are read for the new decoder only; before it there was one key for all, or one each."""
    if not flag(config, "new_decoder_architecture", False):
        one_for_all = optional_flag(config, "multi_query", True)
        config = {**config, "num_kv_heads": 1 if one_for_all else None}
    return read_heads(
        config,
        width=field_name(config, "hidden_size", "n_embed"),
        heads=field_name(config, "num_attention_heads", "n_head"),
        kv_heads="num_kv_heads",
        head_dim=None,
        defaults=(4544, 71, None, None),
    )


def _norms(config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The norms of a block: two in sequence, one that both halves share, or one for each half."""
    new = flag(config, "new_decoder_architecture", False)
    one = norm(f"{_BLOCK}.input_layernorm", components.ATTENTION_NORM, bias=True)
    if not optional_flag(config, "parallel_attn", True):
        second = f"{_BLOCK}.post_attention_layernorm"
        return (*one, *norm(second, components.FEED_FORWARD_NORM, bias=True))
    if size_or_null(config, "num_ln_in_parallel_attn", 2 if new else 1) != 2:
        return one
    return (
        *norm(f"{_BLOCK}.ln_attn", components.ATTENTION_NORM, bias=True),
        *norm(f"{_BLOCK}.ln_mlp", components.FEED_FORWARD_NORM, bias=True),
    )
