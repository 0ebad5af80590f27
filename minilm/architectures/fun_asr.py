"""Fun-ASR Nano: memory convolutions beside the attention of an encoder over stacked frames, and Qwen3.

The encoder's first layer is wider at its input, and two of its layers end in a norm. Sounds are used once,
not once a token. Names, shapes and defaults: huggingface/transformers `models/fun_asr_nano`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from reprlib import repr as shortened

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, layers, size, sub_config
from minilm.architectures.joint_text import Model, joined, text_layout
from minilm.architectures.sound_towers import F, a, z
from minilm.architectures.task_heads import UndeclaredClassError, whole_or_body
from minilm.architectures.vision_tower import (
    Part,
    heard,
    in_numbers,
    matrix,
    projector,
    vector,
    without_bias,
)
from minilm.errors import ConfigError
from minilm.ledger.layout import Layout, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial

_MODEL = Model(
    "qwen3",
    "",
    lambda config, vision, name: (),
    below="model.language_model.",
    bare_text={
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "max_position_embeddings": 40960,
    },
)


def layout(config: Config) -> Layout:
    """The tensors of this type's ForConditionalGeneration, and of its body, for a config.json."""
    audio, between = sub_config(config, "audio_config"), sub_config(config, "adaptor_config")
    kind = audio.get("model_type") or "fun_asr_nano_encoder"
    if kind != "fun_asr_nano_encoder":
        raise UndeclaredClassError("config.json: audio_config", shortened(kind), "a declared type")
    text = text_layout(config, _MODEL)
    width = size(between, "hidden_size", 1024)
    if width != text.symbols["d"]:
        expected = f"text_config's {text.symbols['d']}"
        raise ConfigError("config.json: adaptor_config.hidden_size", f"{width}", expected)
    whole = joined(text, config["model_type"], _encoder(audio), _adaptor(between, audio))
    return whole_or_body(whole, config)


def _encoder(config: Config) -> Part:
    name, depth = "model.audio_tower", layers(config, "num_hidden_layers", 70)
    inputs = size(config, "num_mel_bins", 80) * size(config, "num_stacked_frames", 7)
    taps = size(config, "fsmn_kernel_size", 11)
    last = size(config, "num_timestamp_prediction_layers", 20)
    block = f"{name}.layers.{{i}}"
    normed = sorted({i for i in (depth - last - 1, depth - 1) if i >= 0})
    tensors = (
        *_ends(block, z),
        without_bias(f"{block}.self_attn.fsmn.conv", a, 1, taps, repeat=z),
        *_starts(f"{name}.layers.0", as_polynomial(inputs), ONE),
        *_at(_starts(block, a, z), range(1, depth)),
        *_at(vector(f"{block}.final_layernorm", a, z), normed),
    )
    symbols = {
        "a": size(config, "hidden_size", 512),
        "z": depth,
        "F": size(config, "intermediate_size", 2048),
    }
    return heard(Part(tuple(tensors), symbols))


def _at(tensors: Tensors, numbers: Sequence[int]) -> Tensors:
    """In some layers alone."""
    many = as_polynomial(len(numbers))
    return tuple(replace(t, repeat=many, layers=numbers) for t in tensors) if numbers else ()


def _starts(block: str, inputs: Polynomial, repeat: Polynomial) -> Tensors:
    maps = (matrix(f"{block}.self_attn.{n}_proj", (a, inputs), repeat) for n in "qkv")
    return (
        *(tensor for pair in maps for tensor in pair),
        *vector(f"{block}.input_layernorm", inputs, repeat),
    )


def _ends(block: str, repeat: Polynomial) -> Tensors:
    return (
        *matrix(f"{block}.self_attn.o_proj", (a, a), repeat),
        *matrix(f"{block}.mlp.fc1", (F, a), repeat),
        *matrix(f"{block}.mlp.fc2", (a, F), repeat),
        *vector(f"{block}.post_attention_layernorm", a, repeat),
    )


def _adaptor(config: Config, audio: Config) -> Part:
    """Two maps and some layers of the text's width."""
    name = "model.multi_modal_projector"
    block = f"{name}.layers.{{i}}"
    width, heard = size(config, "hidden_size", 1024), size(audio, "hidden_size", 512)
    inner = size(config, "projector_hidden_size", 2048)
    own = in_numbers(
        Part(
            (*_starts(block, a, z), *_ends(block, z)),
            {
                "a": width,
                "z": layers(config, "num_hidden_layers", 2),
                "F": size(config, "intermediate_size", 256),
            },
        )
    )
    maps = (
        *matrix(f"{name}.linear_1", (inner, heard)),
        *matrix(f"{name}.linear_2", (d, inner)),
    )
    return Part(projector((*maps, *own.tensors)))
