"""Qwen2 and Qwen3, dense and with experts, and Mellum 2 as transformers stores them.

Qwen2 adds biases to the queries, keys and values; Qwen3 normalises each query and key head instead,
and its head width is a field of its own. Of the models with experts, Qwen2's add a shared one behind
a gate; some of their layers may be dense. Mellum lists the layers that slide and those that are dense.
Names, shapes and defaults: huggingface/transformers `models/{qwen2,qwen3,qwen2_moe,qwen3_moe,mellum}`;
expert by expert as the published files have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    Heads,
    attention_kinds,
    d,
    embedding,
    k,
    linear,
    lm_head,
    norm,
    read_heads,
    s,
    separate_attention,
    sliding_layers,
    window_size,
)
from minilm.architectures.config_fields import (
    field_name,
    flag,
    layer_numbers,
    layers,
    size,
    whole_number,
)
from minilm.architectures.conversion import (
    LLAMA_GRAPH,
    RMSNORM,
    STANDARD_BLOCK,
    UNSCALED_OR_LINEAR,
    Architecture,
    GgufGraph,
    all_of,
    heads_fill_width,
    one_attention_bias,
    requires,
)
from minilm.architectures.moe import (
    LayerSplit,
    dense_feed_forward,
    read_experts,
    routed_experts,
    shared_expert,
    sparse_layers,
    split_layers,
)
from minilm.architectures.shared_fields import gated_fields, read_gated
from minilm.config import ModelConfig
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Tensor
from minilm.ledger.symbols import ONE


@dataclass(frozen=True)
class _Defaults:
    heads: tuple[int, int, int | None, int | None]
    layers: int
    feed_forward: int
    experts: tuple[int, int, int] | None = None
    vocabulary: int = 151936
    context: int = 32768


_DEFAULTS = {
    "qwen2": _Defaults((4096, 32, 32, None), 32, 22016),
    "qwen3": _Defaults((4096, 32, 32, 128), 32, 22016),
    "qwen2_moe": _Defaults((2048, 16, 16, None), 24, 5632, (60, 4, 1408)),
    "qwen3_moe": _Defaults((2048, 32, 4, None), 24, 6144, (128, 8, 768)),
    "mellum": _Defaults((2304, 32, 4, 128), 28, 7168, (64, 8, 896), 98304, 131072),
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Qwen{2,3}[Moe]ForCausalLM for a config.json."""
    family = config["model_type"]
    defaults = _DEFAULTS[family]
    heads = read_heads(config, defaults=defaults.heads, rounds=family == "qwen3_moe")
    num_layers = layers(config, "num_hidden_layers", defaults.layers)
    tied = flag(config, "tie_word_embeddings", False)
    split = split_layers(
        num_layers, _has_experts(config, num_layers) if defaults.experts else lambda i: False
    )
    symbols = {
        "V": size(config, "vocab_size", defaults.vocabulary),
        "L": num_layers,
        **split.symbols,
        **heads.symbols,
    }
    if split.dense:
        symbols["f"] = size(config, "intermediate_size", defaults.feed_forward)
    if split.experts and defaults.experts:
        symbols |= read_experts(
            config,
            layers=split.expert_layers,
            total=field_name(config, "num_experts", "num_local_experts"),
            defaults=defaults.experts,
        )
    shared = family == "qwen2_moe"
    if split.experts and shared:
        symbols["s"] = size(config, "shared_expert_intermediate_size", 5632)
    block = "model.layers.{i}"
    tensors = (
        embedding("model.embed_tokens"),
        *norm(f"{block}.input_layernorm", components.ATTENTION_NORM),
        *_attention(f"{block}.self_attn", config, heads),
        *norm(f"{block}.post_attention_layernorm", components.FEED_FORWARD_NORM),
        *dense_feed_forward(f"{block}.mlp", split.dense),
        *routed_experts(f"{block}.mlp", split.experts),
        *(_shared_expert(f"{block}.mlp", split) if shared else ()),
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


def _attention(prefix: str, config: Mapping[str, Any], heads: Heads) -> tuple[Tensor, ...]:
    if config["model_type"] in ("qwen2", "qwen2_moe"):
        bias = config["model_type"] == "qwen2" or flag(config, "qkv_bias", True)
        return separate_attention(prefix, heads, qkv_bias=bias)
    bias = flag(config, "attention_bias", False)
    return (
        *separate_attention(prefix, heads, qkv_bias=bias, output_bias=bias),
        *norm(f"{prefix}.q_norm", components.ATTENTION_QK_NORM, width=k),
        *norm(f"{prefix}.k_norm", components.ATTENTION_QK_NORM, width=k),
    )


def _shared_expert(prefix: str, split: LayerSplit) -> tuple[Tensor, ...]:
    group = split.experts
    if group is None:
        return ()
    return (
        *shared_expert(f"{prefix}.shared_expert", group, width=s),
        *linear(
            f"{prefix}.shared_expert_gate",
            ONE,
            d,
            components.SHARED_EXPERT_GATE,
            repeat=group.repeat,
            layers=group.layers,
        ),
    )


def _has_experts(config: Mapping[str, Any], num_layers: int) -> Callable[[int], bool]:
    """Whether layer i has experts: every ``decoder_sparse_step``-th, but for ``mlp_only_layers``."""
    if config["model_type"] == "mellum":
        return sparse_layers(config, num_layers, lambda i: True)
    step = size(config, "decoder_sparse_step", 1)
    without = layer_numbers(config, "mlp_only_layers")
    return lambda i: i not in without and (i + 1) % step == 0


def _attention_kinds(
    config: Mapping[str, Any], heads: Heads, num_layers: int
) -> tuple[AttentionSpec, ...]:
    if config["model_type"] == "mellum":
        sliding = sliding_layers(config, num_layers, lambda i: False)
        return attention_kinds(heads, num_layers, sliding, window_size(config, 1024))
    if not flag(config, "use_sliding_window", False):
        return (heads.attention(),)
    window = window_size(config, 4096)
    if config["model_type"] == "qwen3_moe":
        return attention_kinds(heads, num_layers, num_layers, window)
    first = whole_number(config, "max_window_layers", 28)
    if config["model_type"] == "qwen2_moe":
        sliding = sliding_layers(config, num_layers, lambda i: i % 2 == 0 and i < first)
    else:
        sliding = sliding_layers(config, num_layers, lambda i: i >= first)
    return attention_kinds(heads, num_layers, sliding, window)


def _hf_fields(config: ModelConfig) -> dict[str, Any]:
    window = config.sliding_window
    layer_type = "sliding_attention" if window else "full_attention"
    return gated_fields(config) | {
        "attention_bias": config.qkv_bias,
        "use_sliding_window": bool(window),
        "sliding_window": window or None,
        "max_window_layers": 0 if window else config.num_layers,
        "layer_types": [layer_type] * config.num_layers,
    }


ARCHITECTURES = (
    Architecture(
        model_type="qwen2",
        class_name="Qwen2ForCausalLM",
        layout=layout,
        unsupported_fields=all_of(
            RMSNORM,
            STANDARD_BLOCK,
            requires(qk_norm=False),
            requires(qkv_bias=True, attention_output_bias=False, feed_forward_bias=False),
            heads_fill_width,
        ),
        hf_fields=_hf_fields,
        minilm_fields=read_gated,
        gguf=GgufGraph(all_of(LLAMA_GRAPH, UNSCALED_OR_LINEAR)),
    ),
    Architecture(
        model_type="qwen3",
        class_name="Qwen3ForCausalLM",
        layout=layout,
        unsupported_fields=all_of(
            RMSNORM,
            STANDARD_BLOCK,
            requires(qk_norm=True, feed_forward_bias=False),
            one_attention_bias,
        ),
        hf_fields=_hf_fields,
        minilm_fields=read_gated,
        gguf=GgufGraph(
            all_of(LLAMA_GRAPH, UNSCALED_OR_LINEAR, requires(qkv_bias=False)), head_dim=True
        ),
    ),
)
