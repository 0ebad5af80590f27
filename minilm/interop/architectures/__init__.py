"""The stock architectures: which of our configurations each can hold, its config.json, its tensors.

One file a family; the order is that in which they are tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from reprlib import repr as shortened

from minilm.config import ModelConfig
from minilm.errors import ConfigError
from minilm.interop.architectures.common import Architecture, Fields
from minilm.interop.architectures.gpt2 import GPT2
from minilm.interop.architectures.gpt_neox import GPT_NEOX
from minilm.interop.architectures.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from minilm.interop.architectures.starcoder2 import STARCODER2

ARCHITECTURES: Sequence[Architecture] = (
    GPT2,
    GPT_NEOX,
    LLAMA,
    MISTRAL,
    QWEN2,
    QWEN3,
    STARCODER2,
)


def fitting(config: ModelConfig) -> Architecture:
    """The first architecture that can hold ``config``; ConfigError naming the field in the way."""
    found = [(architecture.hindrances(config), architecture) for architecture in ARCHITECTURES]
    hindrances, architecture = min(found, key=lambda each: len(each[0]))
    if hindrances:
        field, expected = hindrances[0]
        raise ConfigError(
            f"model.{field}",
            f"{getattr(config, field)}, which no stock architecture has with the other fields",
            f"{expected}, for {architecture.class_name}",
        )
    return architecture


def named(fields: Fields) -> Architecture:
    """The architecture of a config.json. Raises ConfigError for one that we have not."""
    family = fields.get("model_type")
    for architecture in ARCHITECTURES:
        if architecture.family == family:
            return architecture
    known = ", ".join(architecture.family for architecture in ARCHITECTURES)
    raise ConfigError("config.json: model_type", shortened(family), f"one of {known}")
