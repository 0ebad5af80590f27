"""Language models that hear: a declared text model, Whisper's encoder, and a projector between.

Qwen2-Audio, Voxtral, Audio Flamingo 3, Music Flamingo and GLM-ASR. Sounds are used once, not once a token.
Names, shapes and defaults: huggingface/transformers `models/TYPE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import field_name, flag, layers, size, sub_config
from minilm.architectures.joint_text import Model, joined, text_layout
from minilm.architectures.task_heads import WITH_ENCODERS, class_name_of, undeclared_class
from minilm.architectures.vision_tower import Part, matrix, once, projector, vector
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor
from minilm.ledger.symbols import symbol

Config = Mapping[str, Any]
Tensors = tuple[Tensor, ...]
a, z, F, P = symbol("a"), symbol("z"), symbol("F"), symbol("P")
_TOWER, _BETWEEN = "audio_tower", "multi_modal_projector"
_WHISPER = {
    "output": "self_attn.out_proj",
    "norms": ("self_attn_layer_norm", "final_layer_norm"),
    "forward": ("fc1", "fc2"),
    "last": "layer_norm",
}
_LLAMA = {
    "output": "self_attn.o_proj",
    "norms": ("input_layernorm", "post_attention_layernorm"),
    "forward": ("mlp.fc1", "mlp.fc2"),
    "last": "norm",
}


@dataclass(frozen=True)
class _Sound:
    text: Model
    projector: Callable[[Config], Tensors]
    names: Mapping[str, Any]
    has_positions: bool = True


def layout(config: Config) -> Layout:
    """The tensors of these types' ForConditionalGeneration for a config.json."""
    name = class_name_of(config)
    if name and not name.endswith(WITH_ENCODERS):
        raise undeclared_class(config)
    sound = _SOUNDS[config["model_type"]]
    audio = sub_config(config, "audio_config")
    text = text_layout(config, sound.text)
    between = projector(sound.projector(config))
    return joined(text, config["model_type"], _tower(audio, sound), Part(between, {}))


def _tower(config: Config, sound: _Sound) -> Part:
    names = sound.names
    block = f"{_TOWER}.layers.{{i}}"
    bands = size(config, "num_mel_bins", 128)
    up, down = names["forward"]
    first, second = names["norms"]
    key = matrix(f"{block}.self_attn.k_proj", (a, a), z)[:1]
    tensors = (
        *matrix(f"{_TOWER}.conv1", (a, bands, 3)),
        *matrix(f"{_TOWER}.conv2", (a, a, 3)),
        *((once(f"{_TOWER}.embed_positions.weight", (P, a)),) if sound.has_positions else ()),
        *matrix(f"{block}.self_attn.q_proj", (a, a), z),
        *key,
        *matrix(f"{block}.self_attn.v_proj", (a, a), z),
        *matrix(f"{block}.{names['output']}", (a, a), z),
        *vector(f"{block}.{first}", a, z),
        *matrix(f"{block}.{up}", (F, a), z),
        *matrix(f"{block}.{down}", (a, F), z),
        *vector(f"{block}.{second}", a, z),
        *vector(f"{_TOWER}.{names['last']}", a),
    )
    symbols = {
        "a": size(config, field_name(config, "d_model", "hidden_size"), 1280),
        "z": layers(config, field_name(config, "encoder_layers", "num_hidden_layers"), 32),
        "F": size(config, field_name(config, "encoder_ffn_dim", "intermediate_size"), 5120),
    }
    if sound.has_positions:
        symbols["P"] = size(config, "max_source_positions", 1500)
    return Part(tuple(replace(t, component=components.AUDIO) for t in tensors), symbols)


def _one_map(config: Config) -> Tensors:
    del config
    return matrix(f"{_BETWEEN}.linear", (d, a))


def _two_maps(config: Config) -> Tensors:
    maps = (*matrix(f"{_BETWEEN}.linear_1", (d, a)), *matrix(f"{_BETWEEN}.linear_2", (d, d)))
    bias = flag(config, "projector_bias", True)
    return tuple(t for t in maps if bias or not t.name.endswith(".bias"))


def _voxtral(config: Config) -> Tensors:
    audio = sub_config(config, "audio_config")
    inputs = size(audio, "intermediate_size", 5120)
    maps = (*matrix(f"{_BETWEEN}.linear_1", (d, inputs)), *matrix(f"{_BETWEEN}.linear_2", (d, d)))
    return tuple(t for t in maps if not t.name.endswith(".bias"))


def _glmasr(config: Config) -> Tensors:
    audio = sub_config(config, "audio_config")
    inputs = size(audio, "intermediate_size", 5120)
    return (
        *matrix(f"{_BETWEEN}.linear_1", (2 * d, inputs)),
        *matrix(f"{_BETWEEN}.linear_2", (d, 2 * d)),
    )


def _none(config: Config, vision: Config, name: str) -> Tensors:
    del config, vision, name
    return ()


_QWEN2 = Model("qwen2", "", _none, inside="language_model.", tied=False)
_SOUNDS = {
    "audioflamingo3": _Sound(_QWEN2, _two_maps, _WHISPER),
    "glmasr": _Sound(
        replace(
            _QWEN2,
            text="llama",
            tied=True,
            text_defaults={
                "vocab_size": 59264,
                "hidden_size": 2048,
                "intermediate_size": 6144,
                "max_position_embeddings": 8192,
                "num_hidden_layers": 28,
                "num_attention_heads": 16,
                "num_key_value_heads": 4,
            },
        ),
        _glmasr,
        _LLAMA,
        has_positions=False,
    ),
    "musicflamingo": _Sound(_QWEN2, _two_maps, _WHISPER),
    "qwen2_audio": _Sound(_QWEN2, _one_map, _WHISPER),
    "voxtral": _Sound(
        replace(
            _QWEN2,
            text="llama",
            text_defaults={
                "vocab_size": 131072,
                "hidden_size": 3072,
                "intermediate_size": 8192,
                "max_position_embeddings": 131072,
                "num_hidden_layers": 30,
                "num_key_value_heads": 8,
                "head_dim": 128,
            },
        ),
        _voxtral,
        _WHISPER,
    ),
}
