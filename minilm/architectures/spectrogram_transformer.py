"""The Audio Spectrogram Transformer: DeiT over the overlapping squares of one picture, a spectrogram.

A token is a square. Names, shapes and defaults: huggingface/transformers
`models/audio_spectrogram_transformer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import d, norm
from minilm.architectures.config_fields import size
from minilm.architectures.task_heads import C, class_ending, head, number_of_classes
from minilm.architectures.vit import layout as vit_layout
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE

_PREFIX = "audio_spectrogram_transformer."


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of a class of this type for a config.json."""
    patch = size(config, "patch_size", 16)
    sides = [
        patch * _steps(config, patch, *fields)
        for fields in (
            ("num_mel_bins", 128, "frequency_stride"),
            ("max_length", 1024, "time_stride"),
        )
    ]
    picture = {"model_type": "deit", "num_channels": 1, "patch_size": patch, "image_size": sides}
    body = vit_layout({**config, **picture, "architectures": None})
    tensors = tuple(t for t in body.tensors if t.component != components.POOLER)
    symbols = {letter: value for letter, value in body.symbols.items() if letter != "p"}
    body = replace(body, family=config["model_type"], tensors=tensors, symbols=symbols)
    if class_ending(config, ("Model", "ForAudioClassification")) == "Model":
        return body
    classes = (
        *norm("classifier.layernorm", components.CLASSIFIER, width=d, bias=True, repeat=ONE),
        *head("classifier.dense", C),
    )
    return replace(
        body,
        tensors=(*(replace(t, name=_PREFIX + t.name) for t in tensors), *classes),
        symbols={**symbols, "C": number_of_classes(config)},
    )


def _steps(config: Mapping[str, Any], patch: int, name: str, default: int, stride: str) -> int:
    """How many squares fit along a side."""
    length = size(config, name, default)
    if length < patch:
        raise ConfigError(f"config.json: {name}", f"{length}", f"at least patch_size {patch}")
    return (length - patch) // size(config, stride, 10) + 1
