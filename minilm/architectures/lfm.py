"""LFM2, with experts too, and LFM3 as transformers stores them: short convolutions between attention layers.

LFM2's feed-forward is two thirds as wide as its field, rounded up. LFM3 has sliding layers, norms after
each part, and a gate for every head. Names, shapes and defaults: huggingface/transformers
`models/{lfm2,lfm2_moe,lfm3}`; expert by expert as the files have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    d,
    h,
    linear,
    separate_attention,
    window_size,
)
from minilm.architectures.config_fields import (
    field_name,
    flag,
    layer_numbers,
    scaled_size,
    size,
    whole_number,
)
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    Defaults,
    decoder,
    heads_and_layers,
    post_norms,
    pre_norms,
    query_key_norms,
)
from minilm.architectures.moe import (
    correction_bias,
    dense_feed_forward,
    read_experts,
    routed_experts,
    split_layers,
)
from minilm.architectures.recurrent import (
    kinds_of_layers,
    layers_of,
    only_used,
    short_convolution,
    within,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor
from minilm.ledger.symbols import ZERO

_DEFAULTS = {
    "lfm2": Defaults(65536, 32, (2560, 32, 8, None), 12288, 128000, tied=True),
    "lfm2_moe": Defaults(
        65536, 32, (2048, 32, 8, None), 7168, 128000, tied=True, experts=(32, 4, 1792)
    ),
    "lfm3": Defaults(128000, 24, (2048, 16, 4, 128), 7680, 128000, tied=True, window=256),
}
_MLP = f"{BLOCK}.feed_forward"
_CONV, _SLIDES, _ATTENDS = _KINDS = ("conv", "sliding_attention", "full_attention")


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Lfm2, Lfm2Moe and Lfm3ForCausalLM for a config.json."""
    family = config["model_type"]
    defaults, is_third = _DEFAULTS[family], family == "lfm3"
    own_width = "head_dim" if is_third else None
    heads, num_layers = heads_and_layers(config, defaults, head_dim=own_width)
    kinds = kinds_of_layers(
        config, num_layers, _otherwise(config), names=_KINDS if is_third else (_CONV, _ATTENDS)
    )
    convolved, attends = layers_of(kinds, _CONV), layers_of(kinds, _SLIDES, _ATTENDS)
    taps = size(config, "conv_L_cache", 7 if is_third else 3)
    mixer = short_convolution(f"{BLOCK}.conv", taps, bias=flag(config, "conv_bias", False))
    first_sparse = whole_number(config, "num_dense_layers", 2)
    split = split_layers(num_layers, lambda i: family == "lfm2_moe" and i >= first_sparse)
    symbols = {**split.symbols, **only_used(mixer, convolved)}
    if split.experts:
        symbols |= read_experts(config, layers=split.expert_layers, defaults=defaults.experts)
    if family == "lfm2":
        symbols["f"] = _adjusted_width(config)
    windows = ((_SLIDES, window_size(config, defaults.window)), (_ATTENDS, 0))
    has_bias = family == "lfm2_moe" and flag(config, "use_expert_bias", True)
    tied = field_name(config, "tie_word_embeddings", *(() if is_third else ("tie_embedding",)))
    after = f"{BLOCK}.post_operator_norm", f"{BLOCK}.post_ffn_norm"
    return decoder(
        {**config, "tie_word_embeddings": config.get(tied)},
        defaults,
        heads,
        *pre_norms(f"{BLOCK}.operator_norm", f"{BLOCK}.ffn_norm"),
        *(post_norms(*after) if is_third and flag(config, "use_sandwich_norm", True) else ()),
        *within(convolved, *mixer.tensors),
        *within(attends, *_attention(config, heads)),
        *_renamed(dense_feed_forward(_MLP, split.dense)),
        *routed_experts(_MLP, split.experts, names=("w1", "w3", "w2")),
        symbols=symbols,
        attention=tuple(
            heads.attention(layers=group.repeat, window=window)
            for kind, window in windows
            if (group := layers_of(kinds, kind))
        ),
        state=convolved.repeat * mixer.state if convolved else ZERO,
        buffers=correction_bias(f"{_MLP}.expert_bias", split.experts) if has_bias else (),
        final_norm="model.embedding_norm",
    )


def _otherwise(config: Mapping[str, Any]) -> Callable[[int], str]:
    """The kinds where no list says them; LFM2 lists those that attend, by default all."""
    if config["model_type"] == "lfm3":
        return lambda i: _ATTENDS if i % 4 == 2 else _SLIDES if i % 4 == 0 and i else _CONV
    if config["model_type"] == "lfm2" and config.get("full_attn_idxs") is not None:
        listed = layer_numbers(config, "full_attn_idxs")
        return lambda i: _ATTENDS if i in listed else _CONV
    return lambda i: _ATTENDS


def _attention(config: Mapping[str, Any], heads: Heads) -> tuple[Tensor, ...]:
    if config["model_type"] != "lfm3":
        return (
            *separate_attention(ATTENTION, heads, output="out_proj"),
            *query_key_norms(f"{ATTENTION}.q_layernorm", f"{ATTENTION}.k_layernorm"),
        )
    bias = flag(config, "attention_bias", False)
    gate = linear(f"{ATTENTION}.gate_proj", h, d, components.ATTENTION_GATE)
    return (
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *query_key_norms(),
        *(gate if flag(config, "use_attention_gate", True) else ()),
    )


def _renamed(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """Gate, up and down are w1, w3 and w2."""
    names = ("w1", "w3", "w2")
    return [
        replace(tensor, name=f"{_MLP}.{name}.weight")
        for tensor, name in zip(tensors, names, strict=False)
    ]


def _adjusted_width(config: Mapping[str, Any]) -> int:
    width = size(config, field_name(config, "intermediate_size", "block_ff_dim"), 12288)
    if not flag(config, "block_auto_adjust_ff_dim", True):
        return width
    multiple = size(config, "block_multiple_of", 256)
    width = scaled_size(config, "block_ffn_dim_multiplier", 1.0, int(2 * width / 3))
    return size({"block_multiple_of": -(-width // multiple) * multiple}, "block_multiple_of")
