"""Cohere's Command R, R7B and their kin as transformers stores them: parallel blocks behind one norm.

The norms are LayerNorms without bias, the head is tied; Command R+ normalises each query and key head
with gains of its own. In Cohere 2 three layers in four slide; its successor may have experts, whose
outputs and those of shared ones are averaged. Names, shapes and defaults: huggingface/transformers
`models/{cohere,cohere2,cohere2_moe,cohere_compass}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    L,
    attention_kinds,
    g,
    gated_feed_forward,
    h,
    k,
    m,
    norm,
    separate_attention,
    sliding_layers,
    window_size,
)
from minilm.architectures.config_fields import flag, size, size_or_null, whole_number
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
)
from minilm.architectures.moe import (
    dense_feed_forward,
    read_experts,
    routed_experts,
    shared_expert,
    sparse_layers,
    split_layers,
)
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor

_COHERE = Defaults(256000, 40, (8192, 64, None, None), 22528, context=8192, tied=True, window=4096)
_MOE = Defaults(
    256000, 40, (8192, 64, None, 128), context=8192, tied=True, experts=(8, 2, 22528), window=4096
)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Cohere{,2,2Moe,CompassText}ForCausalLM for a config.json."""
    if config["model_type"] == "cohere2_moe":
        return _with_experts(config)
    heads, num_layers = heads_and_layers(config, _COHERE)
    has_head_norms = config["model_type"] == "cohere" and flag(config, "use_qk_norm", False)
    bias = flag(config, "attention_bias", False)
    return decoder(
        config,
        _COHERE,
        heads,
        *norm(f"{BLOCK}.input_layernorm", components.ATTENTION_NORM),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *(_head_norms() if has_head_norms else ()),
        *gated_feed_forward(MLP),
        attention=_attention_kinds(config, heads, num_layers),
    )


def _head_norms() -> tuple[Tensor, ...]:
    part = components.ATTENTION_QK_NORM
    return (
        Tensor(f"{ATTENTION}.q_norm.weight", (h, k), part, Role.SCALED, L),
        Tensor(f"{ATTENTION}.k_norm.weight", (g, k), part, Role.SCALED, L),
    )


def _with_experts(config: Mapping[str, Any]) -> Layout:
    heads, num_layers = heads_and_layers(config, _MOE)
    first = whole_number(config, "first_k_dense_replace", 0)
    split = split_layers(num_layers, sparse_layers(config, num_layers, lambda i: i >= first))
    symbols = dict(split.symbols)
    if split.dense:
        expert_width = size(config, "intermediate_size", _MOE.experts[2])
        symbols["f"] = size_or_null(config, "prefix_dense_intermediate_size", expert_width)
    if split.experts:
        symbols |= read_experts(
            config, layers=split.expert_layers, width="intermediate_size", defaults=_MOE.experts
        )
    shared = whole_number(config, "num_shared_experts", 0)
    bias = flag(config, "attention_bias", False)
    return decoder(
        config,
        _MOE,
        heads,
        *norm(f"{BLOCK}.input_layernorm", components.ATTENTION_NORM),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *dense_feed_forward(MLP, split.dense),
        *routed_experts(MLP, split.experts),
        *shared_expert(
            f"{MLP}.shared_experts", split.experts if shared else None, width=shared * m
        ),
        symbols=symbols,
        attention=_attention_kinds(config, heads, num_layers),
    )


def _attention_kinds(
    config: Mapping[str, Any], heads: Heads, num_layers: int
) -> tuple[AttentionSpec, ...]:
    family = config["model_type"]
    if family == "cohere":
        return (heads.attention(),)
    period = 1 if family == "cohere_compass_text" else size(config, "sliding_window_pattern", 4)
    first = 0
    before = 1
    if family == "cohere2_moe":
        first = whole_number(config, "first_k_dense_replace", 0)
        before = size(config, "prefix_dense_sliding_window_pattern", 1)

    def slides(i: int) -> bool:
        return bool((i + 1) % before if i < first else (i - first + 1) % period)

    sliding = sliding_layers(config, num_layers, slides)
    return attention_kinds(heads, num_layers, sliding, window_size(config, 4096))
