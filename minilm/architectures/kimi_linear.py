"""Kimi Linear and Ling 3.0 (Bailing hybrid) as transformers stores them: Kimi Delta Attention beside latent.

A delta layer has a convolution each for queries, keys and values, and decays every channel by itself.
Names, shapes and defaults: huggingface/transformers `models/{kimi_linear,bailing_hybrid}`; expert by
expert as the files have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import Heads, d, h, linear, norm
from minilm.architectures.config_fields import (
    field_name,
    flag,
    layer_numbers,
    layers,
    optional_size,
    size,
    sub_config,
    whole_number,
)
from minilm.architectures.decoder import BLOCK, Defaults, decoder, pre_norms
from minilm.architectures.deepseek import c, latent_attention, n, r, v
from minilm.architectures.moe import sparse_feed_forward, sparse_layers, split_layers
from minilm.architectures.recurrent import (
    ATTENTION,
    HEADS,
    KEY_WIDTH,
    RECURRENT,
    TAPS,
    Mixer,
    convolution,
    decay,
    kinds_of_layers,
    mixer_layers,
    only_used,
    within,
)
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import ONE

_DEFAULTS = {
    "kimi_linear": Defaults(
        163840, 27, (2304, 32, None, None), 9216, 1048576, experts=(256, 8, 1024)
    ),
    "bailing_hybrid": Defaults(
        157184, 42, (2560, 32, None, None), 6144, 262144, experts=(512, 8, 768)
    ),
}
_DENSE = {f"{BLOCK}.block_sparse_moe.{name}_proj.weight" for name in ("gate", "up", "down")}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of KimiLinear and BailingHybridForCausalLM for a config.json."""
    defaults = _DEFAULTS[config["model_type"]]
    is_kimi = config["model_type"] == "kimi_linear"
    num_layers = layers(config, "num_hidden_layers", defaults.layers)
    mixers = mixer_layers(_kinds(config, num_layers))
    prefix = f"{BLOCK}.self_attn" if is_kimi else f"{BLOCK}.attention"
    mixer = _delta_attention(prefix, config)
    dense = whole_number(config, "first_k_dense_replace", 1 if is_kimi else 2)
    sparse = sparse_feed_forward(
        config,
        f"{BLOCK}.block_sparse_moe" if is_kimi else f"{BLOCK}.mlp",
        split_layers(num_layers, sparse_layers(config, num_layers, lambda i: i >= dense)),
        defaults.experts,
        fields=(
            field_name(config, "num_local_experts", "num_experts"),
            field_name(config, "num_experts_per_tok", "num_experts_per_token"),
            "moe_intermediate_size",
        ),
        names=("w1", "w3", "w2") if is_kimi else ("gate_proj", "up_proj", "down_proj"),
        shared=(
            "shared_experts",
            field_name(config, "n_shared_experts", "num_shared_experts"),
            1,
        ),
        correction="gate.e_score_correction_bias" if is_kimi else "gate.expert_bias",
    )
    heads = {
        "d": size(config, "hidden_size", defaults.heads[0]),
        "h": size(config, "num_attention_heads", defaults.heads[1]),
    }
    latent, symbols = _latent_attention(prefix, config)
    return decoder(
        {**config, "tie_word_embeddings": False},  # the implementation ties nothing
        defaults,
        Heads(heads, h * (n + r), h * (n + r)),
        *pre_norms(),
        *within(mixers.recurrent, *mixer.tensors),
        *within(mixers.attention, *latent),
        *(_published(sparse.tensors) if "auto_map" in config else sparse.tensors),
        symbols={
            **sparse.symbols,
            **only_used(mixer, mixers.recurrent),
            **(symbols if mixers.attention else {}),
        },
        attention=(AttentionSpec(mixers.attention.repeat, c + r, h * (n + r), h * v),)
        if mixers.attention
        else (),
        state=mixers.state(mixer),
        buffers=sparse.buffers,
        table="model.embed_tokens" if is_kimi else "model.word_embeddings",
        fields={
            "max_position_embeddings": field_name(
                config, "max_position_embeddings", "model_max_length"
            )
        },
    )


def _published(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """As the model's own code names them: transformers writes the dense layers as those with experts."""
    return tuple(
        replace(t, name=t.name.replace(".block_sparse_moe.", ".mlp.")) if t.name in _DENSE else t
        for t in tensors
    )


def _kinds(config: Mapping[str, Any], num_layers: int) -> list[str]:
    """`layer_types`, or where it is absent Kimi's lists of layers, which count from 1."""
    every = size(config, "layer_group_size", 6)
    if config["model_type"] == "bailing_hybrid":
        return kinds_of_layers(
            config, num_layers, lambda i: RECURRENT if (i + 1) % every else ATTENTION
        )
    own = sub_config(config, "linear_attn_config")
    if own.get("full_attn_layers") is not None and own.get("kda_layers") is not None:
        attends = layer_numbers(own, "full_attn_layers")
        if attends ^ layer_numbers(own, "kda_layers") != set(range(1, num_layers + 1)):
            name = "config.json: linear_attn_config.full_attn_layers"
            got = shortened(own["full_attn_layers"])
            raise ConfigError(name, got, f"those of {num_layers} layers not in kda_layers")
        return kinds_of_layers(
            config, num_layers, lambda i: ATTENTION if i + 1 in attends else RECURRENT
        )
    return kinds_of_layers(
        config, num_layers, lambda i: ATTENTION if i and i % 4 == 0 else RECURRENT
    )


def _delta_attention(prefix: str, config: Mapping[str, Any]) -> Mixer:
    is_kimi = config["model_type"] == "kimi_linear"
    own = sub_config(config, "linear_attn_config") if is_kimi else {}

    def named(name: str, inside: str, outside: str, default: int) -> int:
        if own.get(inside) is not None:
            return size(own, inside)
        return size(config, name if config.get(name) is not None else outside, default)

    heads = "linear_num_heads" if is_kimi else "num_attention_heads"
    width = "linear_head_dim" if is_kimi else "head_dim"
    taps = "linear_conv_kernel_dim" if is_kimi else "short_conv_kernel_size"
    symbols = {
        "H": named("linear_num_heads", "num_heads", heads, 32),
        "Q": named("linear_head_dim", "head_dim", width, 128),
        "z": named("linear_conv_kernel_dim", "short_conv_kernel_size", taps, 4),
    }
    inner = HEADS * KEY_WIDTH
    inputs, gates = components.MIXER_INPUT, components.MIXER_GATES

    def gate(letter: str) -> tuple[Tensor, ...]:
        """Kimi's go through a narrow space."""
        if not is_kimi:
            return linear(f"{prefix}.{letter}_proj", inner, d, gates)
        return (
            *linear(f"{prefix}.{letter}_a_proj", KEY_WIDTH, d, gates),
            *linear(f"{prefix}.{letter}_b_proj", inner, KEY_WIDTH, gates),
        )

    tensors = (
        *(each for x in "qkv" for each in linear(f"{prefix}.{x}_proj", inner, d, inputs)),
        *(each for x in "qkv" for each in convolution(f"{prefix}.{x}_conv1d", inner)),
        decay(f"{prefix}.A_log", *((ONE, ONE, HEADS, ONE) if is_kimi else (HEADS,))),
        decay(f"{prefix}.dt_bias", inner, role=Role.ADDED),
        *gate("f"),
        *gate("g"),
        *linear(f"{prefix}.b_proj", HEADS, d, gates),
        *norm(f"{prefix}.o_norm", components.MIXER_NORM, width=KEY_WIDTH),
        *linear(f"{prefix}.{'o_proj' if is_kimi else 'dense'}", d, inner, components.MIXER_OUTPUT),
    )
    return Mixer(tensors, symbols, inner * KEY_WIDTH + 3 * inner * TAPS)


def _latent_attention(
    prefix: str, config: Mapping[str, Any]
) -> tuple[tuple[Tensor, ...], dict[str, int]]:
    """As DeepSeek's; Ling's output has another name and a gate a head."""
    is_kimi = config["model_type"] == "kimi_linear"
    rank = optional_size(config, "q_lora_rank") if is_kimi else None
    symbols = {
        **({"q": rank} if rank else {}),
        "c": size(config, "kv_lora_rank", 512),
        "r": size(config, "qk_rope_head_dim", 64),
        "n": size(config, "qk_nope_head_dim", 128),
        "v": size(config, "v_head_dim", 128),
    }
    tensors = latent_attention(
        prefix, has_query_latent=bool(rank), bias=flag(config, "attention_bias", False)
    )
    if is_kimi:
        return tensors, symbols
    return (
        *(replace(each, name=each.name.replace("o_proj", "dense")) for each in tensors),
        *linear(f"{prefix}.g_proj", h, d, components.ATTENTION_GATE),
    ), symbols
