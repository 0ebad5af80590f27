"""Language models that hear: a declared text model, Whisper's encoder, and a projector between.

Qwen2-Audio, Qwen3-ASR, Voxtral, Audio Flamingo 3, Music Flamingo, GLM-ASR and MOSS-Transcribe. Sounds are
used once, not once a token.
Names, shapes and defaults: huggingface/transformers `models/TYPE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from minilm.architectures.building_blocks import d, linear
from minilm.architectures.config_fields import Config, flag, size, sub_config
from minilm.architectures.decoder import BLOCK
from minilm.architectures.joint_text import Model, joined, text_layout
from minilm.architectures.sound_towers import a, convolved, glmasr, voxtral_realtime, whisper
from minilm.architectures.task_heads import whole_or_body
from minilm.architectures.vision_tower import Part, matrix, projector, vector, without_bias
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensors
from minilm.ledger.symbols import as_polynomial

_TOWER, _BETWEEN = "audio_tower", "multi_modal_projector"


@dataclass(frozen=True)
class _Sound:
    text: Model
    projector: Callable[[Config, str], Tensors]
    tower: Callable[[Config, str], Part] = whisper
    above: str = ""  # in front of both names
    audio: str = ""  # the type of an audio_config that says none
    audio_defaults: Mapping[str, Any] = field(default_factory=dict)


def layout(config: Config) -> Layout:
    """The tensors of these types' ForConditionalGeneration, and of their bodies, for a config.json."""
    sound = _SOUNDS[config["model_type"]]
    audio = {**sound.audio_defaults, **sub_config(config, "audio_config", sound.audio)}
    text = text_layout(config, sound.text)
    between = projector(sound.projector({**config, "audio_config": audio}, sound.above + _BETWEEN))
    tower = sound.tower(audio, sound.above + _TOWER)
    return whole_or_body(joined(text, config["model_type"], tower, Part(between)), config)


def _one_map(config: Config, name: str) -> Tensors:
    del config
    return matrix(f"{name}.linear", (d, a))


def _two_maps(config: Config, name: str) -> Tensors:
    maps = (*matrix(f"{name}.linear_1", (d, a)), *matrix(f"{name}.linear_2", (d, d)))
    bias = flag(config, "projector_bias", True)
    return tuple(t for t in maps if bias or not t.name.endswith(".bias"))


def _voxtral(config: Config, name: str) -> Tensors:
    audio = sub_config(config, "audio_config")
    inputs = size(audio, "intermediate_size", 5120)
    maps = (*matrix(f"{name}.linear_1", (d, inputs)), *matrix(f"{name}.linear_2", (d, d)))
    return tuple(t for t in maps if not t.name.endswith(".bias"))


def _glmasr(config: Config, name: str) -> Tensors:
    audio = sub_config(config, "audio_config")
    inputs = size(audio, "intermediate_size", 5120)
    return (
        *matrix(f"{name}.linear_1", (2 * d, inputs)),
        *matrix(f"{name}.linear_2", (d, 2 * d)),
    )


def _none(config: Config, vision: Config, name: str) -> Tensors:
    del config, vision, name
    return ()


def _moss(config: Config, name: str) -> Tensors:
    """Several sounds' tokens become one."""
    merged = size(config, "audio_merge_size", 4) * a
    maps = (*matrix(f"{name}.linear_1", (d, merged)), *matrix(f"{name}.linear_2", (d, d)))
    bias = flag(config, "projector_bias", True)
    return (
        *(t for t in maps if bias or not t.name.endswith(".bias")),
        *vector(f"{name}.norm", d),
    )


def _qwen3_asr(config: Config, name: str) -> Tensors:
    outputs = size(sub_config(config, "audio_config"), "output_dim", 3584)
    return (*matrix(f"{name}.linear_1", (a, a)), *matrix(f"{name}.linear_2", (outputs, a)))


def _voxtral_realtime(config: Config, name: str) -> Tensors:
    merged = size(config, "downsample_factor", 4) * a
    return (
        without_bias(f"{name}.linear_1", d, merged),
        without_bias(f"{name}.linear_2", d, d),
    )


def _adaptive_norms(text: Layout, config: Config) -> Layout:
    """Each feed-forward's input is scaled by what two maps make of the delay."""
    del config
    prefix, part = f"{BLOCK}.ada_rms_norm", components.FEED_FORWARD_NORM
    maps = (
        *linear(f"{prefix}.linear1", as_polynomial(32), d, part),
        *linear(f"{prefix}.linear2", d, as_polynomial(32), part),
    )
    once_a_delay = tuple(replace(t, role=Role.ONCE) for t in maps)
    return replace(text, tensors=(*text.tensors, *once_a_delay))


_QWEN2 = Model("qwen2", "", _none, inside="language_model.", tied=False)
_UNTIED = replace(_QWEN2, never_tied=True)
_QWEN3 = Model("qwen3", "", _none, below="model.language_model.")
_SOUNDS = {
    "audioflamingo3": _Sound(_UNTIED, _two_maps, audio="audioflamingo3_encoder"),
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
        glmasr,
    ),
    "moss_transcribe_diarize": _Sound(
        replace(
            _QWEN3,
            bare_text={
                "hidden_size": 1024,
                "intermediate_size": 3072,
                "num_hidden_layers": 28,
                "num_attention_heads": 16,
                "num_key_value_heads": 8,
                "max_position_embeddings": 131072,
            },
        ),
        _moss,
        above="model.",
        audio="moss_transcribe_diarize_audio",
        audio_defaults={
            "num_mel_bins": 80,
            "num_hidden_layers": 24,
            "intermediate_size": 4096,
            "hidden_size": 1024,
        },
    ),
    "musicflamingo": _Sound(_UNTIED, _two_maps),
    "qwen2_audio": _Sound(_UNTIED, _one_map),
    "qwen3_asr": _Sound(
        replace(
            _QWEN3,
            bare_text={
                "hidden_size": 2048,
                "intermediate_size": 6144,
                "num_hidden_layers": 28,
                "num_attention_heads": 16,
                "num_key_value_heads": 8,
                "max_position_embeddings": 65536,
            },
        ),
        _qwen3_asr,
        convolved,
        above="model.",
        audio_defaults={"d_model": 1024, "encoder_layers": 24, "encoder_ffn_dim": 4096},
    ),
    "voxtral": _Sound(
        replace(
            _UNTIED,
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
        audio="voxtral_encoder",
    ),
    "voxtral_realtime": _Sound(
        replace(
            _QWEN2,
            text="voxtral_realtime_text",
            tied=True,
            texts={"voxtral_realtime_text": "mistral"},
            text_defaults={
                "vocab_size": 131072,
                "hidden_size": 3072,
                "intermediate_size": 9216,
                "num_hidden_layers": 26,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "sliding_window": 8192,
            },
            changes=_adaptive_norms,
        ),
        _voxtral_realtime,
        voxtral_realtime,
        audio="voxtral_realtime_encoder",
    ),
}
