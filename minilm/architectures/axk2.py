"""A.X K2 as transformers stores it: DeepSeek-V3.2's attention with a gate and norms with gates of low
rank.

Queries come with the gate from twice the latent, the layer's own and a second of it. The norm before
dense feed-forwards has no gate. Names, shapes and defaults: huggingface/transformers `models/axk2`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import Heads, L, d, h, linear, norm
from minilm.architectures.config_fields import flag, layers, size, whole_number
from minilm.architectures.decoder import ATTENTION, BLOCK, MLP, Defaults, decoder
from minilm.architectures.deepseek import c, indexer, j, n, q, r, v, w
from minilm.architectures.moe import (
    LayerGroup,
    routed_fields,
    sparse_feed_forward,
    sparse_layers,
    split_layers,
)
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Tensor
from minilm.ledger.symbols import symbol

t = symbol("t")

_DEFAULTS = Defaults(163840, 48, (2048, 32, None, None), 5120, 131072, experts=(128, 8, 512))


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of AXK2ForCausalLM for a config.json."""
    num_layers = layers(config, "num_hidden_layers", _DEFAULTS.layers)
    first = whole_number(config, "first_k_dense_replace", 1)
    step = size(config, "moe_layer_freq", 1)
    has_experts = sparse_layers(config, num_layers, lambda i: i >= first and i % step == 0)
    split = split_layers(num_layers, has_experts)
    sparse = sparse_feed_forward(
        config,
        MLP,
        split,
        _DEFAULTS.experts,
        fields=routed_fields(config),
        shared=("shared_experts", "n_shared_experts", 1),
        correction="gate.e_score_correction_bias",
    )
    symbols = {
        **sparse.symbols,
        "d": size(config, "hidden_size", 2048),
        "h": size(config, "num_attention_heads", 32),
        "q": size(config, "q_lora_rank", 384),
        "c": size(config, "kv_lora_rank", 128),
        "r": size(config, "qk_rope_head_dim", 32),
        "n": size(config, "qk_nope_head_dim", 64),
        "v": size(config, "v_head_dim", 64),
        "j": size(config, "index_n_heads", 16),
        "w": size(config, "index_head_dim", 128),
        "t": size(config, "gated_norm_rank", 16),
    }
    selected = size(config, "index_topk", 2048)
    bias = flag(config, "attention_bias", False)
    spec = AttentionSpec(L, c + r + w, h * (n + r), h * v, selected=selected, index=j * (w + 1))
    name, part = "post_attention_layernorm", components.FEED_FORWARD_NORM
    dense = split.dense
    return decoder(
        config,
        _DEFAULTS,
        Heads({}, h * n, h * n),
        *_gated_norm("input_layernorm", components.ATTENTION_NORM, LayerGroup()),
        *_attention(bias),
        *indexer(range(num_layers)),
        *(norm(f"{BLOCK}.{name}", part, repeat=dense.repeat, layers=dense.layers) if dense else ()),
        *(_gated_norm(name, part, split.experts) if split.experts else ()),
        *sparse.tensors,
        symbols=symbols,
        buffers=sparse.buffers,
        attention=(spec,),
    )


def _gated_norm(name: str, part: str, group: LayerGroup) -> tuple[Tensor, ...]:
    prefix, repeat, at = f"{BLOCK}.{name}", group.repeat, group.layers
    return (
        *norm(f"{prefix}.norm", part, repeat=repeat, layers=at),
        *linear(f"{prefix}.W_down", t, d, part, repeat=repeat, layers=at),
        *linear(f"{prefix}.W_up", d, t, part, repeat=repeat, layers=at),
    )


def _attention(bias: bool) -> tuple[Tensor, ...]:
    latent, down = components.ATTENTION_LATENT_NORM, components.ATTENTION_KEY_VALUE_LATENT
    queries = h * (n + r) + h * v
    return (
        *linear(f"{ATTENTION}.q_a_proj", q, d, components.ATTENTION_QUERY_LATENT, bias=bias),
        *norm(f"{ATTENTION}.q_a_layernorm", latent, width=q),
        *linear(f"{ATTENTION}.q_b_proj", queries, 2 * q, components.ATTENTION_QUERY),
        *linear(f"{ATTENTION}.kv_a_proj_with_mqa", c + r, d, down, bias=bias),
        *norm(f"{ATTENTION}.kv_a_layernorm", latent, width=c),
        *linear(f"{ATTENTION}.kv_b_proj", h * (n + v), c, components.ATTENTION_KEY_VALUE),
        *linear(f"{ATTENTION}.o_proj", d, h * v, components.ATTENTION_OUTPUT, bias=bias),
    )
