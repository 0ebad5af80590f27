"""Hy 4 as transformers stores it: latent attention with gate, sinks and indexer, and A residual streams.

The layers between those with an indexer take its selection. Hyper-connections mix the residual streams
around each half of a layer. Names, shapes and defaults: huggingface/transformers `models/hy_v4`. The
files' modules for multi-token prediction (`model.mtp_layers`) are not declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import Heads, L, d, h, layer_kinds, linear, m
from minilm.architectures.config_fields import flag, layers, size, whole_number
from minilm.architectures.decoder import ATTENTION, BLOCK, MLP, Defaults, decoder, pre_norms
from minilm.architectures.deepseek import c, indexer, j, latent_attention, n, r, v, w
from minilm.architectures.moe import (
    LayerGroup,
    correction_bias,
    group_of,
    read_experts,
    routed_fields,
    router,
    sparse_layers,
    split_layers,
    stacked_experts,
)
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

A = symbol("A")

_DEFAULTS = Defaults(120832, 34, (2816, 32, None, None), 6912, 262144, experts=(256, 8, 768))


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of HYV4ForCausalLM for a config.json."""
    num_layers = layers(config, "num_hidden_layers", _DEFAULTS.layers)
    split = split_layers(num_layers, sparse_layers(config, num_layers, lambda i: i > 0))
    symbols = {
        "d": size(config, "hidden_size", 2816),
        "h": size(config, "num_attention_heads", 32),
        "q": size(config, "q_lora_rank", 1536),
        "c": size(config, "kv_lora_rank", 512),
        "r": size(config, "qk_rope_head_dim", 64),
        "n": size(config, "qk_nope_head_dim", 192),
        "v": size(config, "v_head_dim", 256),
        "j": size(config, "index_n_heads", 16),
        "w": size(config, "index_head_dim", 128),
        "A": size(config, "hc_mult", 4),
        **split.symbols,
    }
    if split.experts:
        total, active, width = routed_fields(config)
        symbols |= read_experts(
            config,
            layers=split.expert_layers,
            total=total,
            active=active,
            width=width,
            defaults=_DEFAULTS.experts,
        )
    kinds = layer_kinds(
        config,
        "indexer_types",
        num_layers,
        ("full", "shared"),
        lambda i: "full" if i == 0 or (i - 1) % 4 == 0 else "shared",
    )
    own = [i for i, kind in enumerate(kinds) if kind == "full"]
    bias = flag(config, "attention_bias", False)
    shared = whole_number(config, "n_shared_experts", 1)
    sinks = components.ATTENTION_SINKS
    return decoder(
        config,
        _DEFAULTS,
        Heads({}, h * n, h * n),
        *pre_norms(),
        *latent_attention(ATTENTION, has_query_latent=True, bias=bias),
        *linear(f"{ATTENTION}.linear_gate", h * v, d, components.ATTENTION_GATE),
        Tensor(f"{ATTENTION}.learnable_sink_param", (h,), sinks, Role.SCALED, L),
        *indexer(range(num_layers) if len(own) == num_layers else own),
        *_feed_forward(split.dense, split.experts, shared),
        *_streams("hc_attn_layer"),
        *_streams("hc_mlp_layer"),
        before=_last_stream(),
        symbols=symbols,
        buffers=correction_bias(f"{MLP}.gate.e_score_correction_bias", split.experts),
        attention=_attention_kinds(config, own, num_layers),
    )


def _attention_kinds(
    config: Mapping[str, Any], own: list[int], num_layers: int
) -> list[AttentionSpec]:
    selected = size(config, "index_topk", 2048)
    plain = AttentionSpec(L, c + r, h * (n + r), h * v, selected=selected)
    indexed = replace(plain, cache=plain.cache + w, index=j * (w + 1))
    others = sorted(set(range(num_layers)) - set(own))
    groups = ((indexed, group_of(own, num_layers)), (plain, group_of(others, num_layers)))
    return [replace(spec, layers=group.repeat) for spec, group in groups if group]


def _gated(prefix: str, width: Polynomial, group: LayerGroup, shared: bool) -> tuple[Tensor, ...]:
    """Its gate has a name of its own."""
    parts = {
        "linear_gate": components.FEED_FORWARD_GATE,
        "up_proj": components.FEED_FORWARD_UP,
        "down_proj": components.FEED_FORWARD_DOWN,
    }
    tensors: list[Tensor] = []
    for name, part in parts.items():
        sizes = (d, width) if name == "down_proj" else (width, d)
        tensors += linear(
            f"{prefix}.{name}",
            *sizes,
            components.SHARED_EXPERT if shared else part,
            repeat=group.repeat,
            layers=group.layers,
        )
    return tuple(tensors)


def _feed_forward(
    dense: LayerGroup | None, experts: LayerGroup | None, shared: int
) -> tuple[Tensor, ...]:
    tensors: list[Tensor] = []
    if dense:
        tensors += _gated(MLP, symbol("f"), dense, shared=False)
    if experts:
        tensors += router(f"{MLP}.gate", experts)
        stacked = (f"{MLP}.experts.gate_up_proj", f"{MLP}.experts.down_proj")
        tensors += stacked_experts(*stacked, experts)
        tensors += _gated(f"{MLP}.shared_experts", shared * m, experts, shared=True)
    return tuple(tensors)


def _streams(name: str) -> tuple[Tensor, ...]:
    prefix, part = f"{BLOCK}.hc_pre.{name}", components.RESIDUAL_STREAMS
    return (
        Tensor(f"{prefix}.hc_fn", (2 * A, A * d), part, Role.MULTIPLIED, L),
        Tensor(f"{prefix}.hc_base", (2 * A,), part, Role.ADDED, L),
        Tensor(f"{prefix}.hc_scale", (as_polynomial(2),), part, Role.SCALED, L),
    )


def _last_stream() -> tuple[Tensor, ...]:
    """What makes one stream of all."""
    prefix, part = "model.hc_pre.hc_head.hc_head_", components.RESIDUAL_STREAMS
    return (
        Tensor(f"{prefix}fn", (A, A * d), part, Role.MULTIPLIED),
        Tensor(f"{prefix}base", (A,), part, Role.ADDED),
        Tensor(f"{prefix}scale", (ONE,), part, Role.SCALED),
    )
