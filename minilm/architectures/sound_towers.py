"""Towers over sounds: Whisper's encoder, under several names, and those that took its layers.

Each is used once a sound: none of its FLOPs is a token's. Names, shapes and defaults:
huggingface/transformers `models/{whisper,audioflamingo3,glmasr,qwen2_5_omni,qwen3_omni_moe,qwen3_asr,
voxtral_realtime}`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from minilm.architectures.config_fields import Config, field_name, layers, size, size_or_null
from minilm.architectures.vision_tower import (
    Part,
    changed,
    gain,
    heard,
    matrix,
    once,
    vector,
    without_bias,
)
from minilm.ledger.layout import Tensor, Tensors
from minilm.ledger.symbols import as_polynomial, symbol

a, z, F, P = symbol("a"), symbol("z"), symbol("F"), symbol("P")


@dataclass(frozen=True)
class Names:
    """What the parts of Whisper's encoder are called; positions may be computed."""

    output: str = "self_attn.out_proj"
    norms: tuple[str, str] = ("self_attn_layer_norm", "final_layer_norm")
    forward: tuple[str, str] = ("fc1", "fc2")
    last: str = "layer_norm"
    has_positions: bool = True
    key_bias: bool = False


WHISPER = Names()
_LLAMA = Names(
    "self_attn.o_proj",
    ("input_layernorm", "post_attention_layernorm"),
    ("mlp.fc1", "mlp.fc2"),
    "norm",
    has_positions=False,
)
_OMNI = Names(last="ln_post", has_positions=False)


def whisper(config: Config, name: str, names: Names = WHISPER) -> Part:
    """The encoder below ``name`` for an audio_config."""
    bands = size(config, "num_mel_bins", 128)
    tensors = (
        *matrix(f"{name}.conv1", (a, bands, 3)),
        *matrix(f"{name}.conv2", (a, a, 3)),
        *((once(f"{name}.embed_positions.weight", (P, a)),) if names.has_positions else ()),
        *_layers(name, names),
    )
    symbols = _symbols(config)
    if names.has_positions:
        symbols["P"] = size(config, "max_source_positions", 1500)
    return heard(Part(tensors, symbols))


def _layers(name: str, names: Names) -> Tensors:
    block = f"{name}.layers.{{i}}"
    up, down = names.forward
    first, second = names.norms
    key = matrix(f"{block}.self_attn.k_proj", (a, a), z)
    return (
        *matrix(f"{block}.self_attn.q_proj", (a, a), z),
        *(key if names.key_bias else key[:1]),
        *matrix(f"{block}.self_attn.v_proj", (a, a), z),
        *matrix(f"{block}.{names.output}", (a, a), z),
        *vector(f"{block}.{first}", a, z),
        *matrix(f"{block}.{up}", (F, a), z),
        *matrix(f"{block}.{down}", (a, F), z),
        *vector(f"{block}.{second}", a, z),
        *vector(f"{name}.{names.last}", a),
    )


def glmasr(config: Config, name: str) -> Part:
    """Heads in groups, each with one key and value; together they need not be as wide as the tower."""
    part = whisper(config, name, _LLAMA)
    heads = size(config, "num_attention_heads", 20)
    groups = size_or_null(config, "num_key_value_heads", heads)
    each = size(config, "head_dim", max(1, part.symbols["a"] // heads))
    queries = a if heads * each == part.symbols["a"] else as_polynomial(heads * each)
    keys = queries if groups == heads else as_polynomial(groups * each)
    rows = {"q_proj": queries, "k_proj": keys, "v_proj": keys}

    def sized(tensor: Tensor) -> dict[str, Any]:
        kind = tensor.name.split(".")[-2]
        if kind in rows:
            return {"shape": (rows[kind], *tensor.shape[1:])}
        return {"shape": (a, queries)} if tensor.name.endswith("o_proj.weight") else {}

    return changed(part, sized)


def _symbols(config: Config, depth: int = 32) -> dict[str, int]:
    return {
        "a": size(config, field_name(config, "d_model", "hidden_size"), 1280),
        "z": layers(config, field_name(config, "encoder_layers", "num_hidden_layers"), depth),
        "F": size(config, field_name(config, "encoder_ffn_dim", "intermediate_size"), 5120),
    }


def qwen2_5_omni(config: Config, name: str) -> Part:
    """With a projection, and what stands before and after a sound."""
    part, outputs = whisper(config, name, _OMNI), size(config, "output_dim", 3584)
    more = (
        *matrix(f"{name}.proj", (outputs, a)),
        without_bias(f"{name}.audio_bos_eos_token", 2, outputs),
    )
    return heard(Part((*part.tensors, *more), part.symbols))


def convolved(config: Config, name: str) -> Part:
    """Three convolutions over time and frequency, each of which halves both, and Whisper's layers."""
    channels, bands = size(config, "downsample_hidden_size", 480), size(config, "num_mel_bins", 128)
    for _ in range(3):
        bands = (bands + 1) // 2
    return heard(
        Part(
            (
                *matrix(f"{name}.conv2d1", (channels, 1, 3, 3)),
                *matrix(f"{name}.conv2d2", (channels, channels, 3, 3)),
                *matrix(f"{name}.conv2d3", (channels, channels, 3, 3)),
                without_bias(f"{name}.conv_out", a, channels * bands),
                *_layers(name, replace(_OMNI, key_bias=True)),
            ),
            _symbols(config),
        )
    )


def qwen3_omni(config: Config, name: str) -> Part:
    """With two maps to the text's width."""
    part = convolved(config, name)
    maps = (
        *matrix(f"{name}.proj1", (a, a)),
        *matrix(f"{name}.proj2", (size(config, "output_dim", 3584), a)),
    )
    return heard(Part((*part.tensors, *maps), part.symbols))


def voxtral_realtime(config: Config, name: str) -> Part:
    """Llama's layers with some biases, behind two causal convolutions."""
    block, bands = f"{name}.layers.{{i}}", size(config, "num_mel_bins", 128)
    heads = size(config, field_name(config, "encoder_attention_heads", "num_attention_heads"), 32)
    queries = heads * size(config, "head_dim", 64)
    return heard(
        Part(
            (
                *matrix(f"{name}.embedder.conv1", (a, bands, 3)),
                *matrix(f"{name}.embedder.conv2", (a, a, 3)),
                *matrix(f"{block}.self_attn.q_proj", (queries, a), z),
                without_bias(f"{block}.self_attn.k_proj", queries, a, repeat=z),
                *matrix(f"{block}.self_attn.v_proj", (queries, a), z),
                *matrix(f"{block}.self_attn.o_proj", (a, queries), z),
                gain(f"{block}.self_attn_layer_norm", a, z),
                without_bias(f"{block}.mlp.gate_proj", F, a, repeat=z),
                without_bias(f"{block}.mlp.up_proj", F, a, repeat=z),
                *matrix(f"{block}.mlp.down_proj", (a, F), z),
                gain(f"{block}.final_layer_norm", a, z),
                gain(f"{name}.norm", a),
            ),
            _symbols(config),
        )
    )
