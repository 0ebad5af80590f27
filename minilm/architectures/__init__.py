"""One short declaration a family: a configuration in, the Layout of its real tensors out."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from minilm.ledger.layout import Layout

# `model_type` of a Hugging Face config.json -> the module here whose `layout` declares it.
HUGGING_FACE = {
    "gpt2": "gpt2",
    "bloom": "bloom",
    "falcon": "falcon",
    "gpt_neo": "gpt_neo",
    "gpt_neox": "gpt_neox",
    "gptj": "gptj",
    "mpt": "mpt",
    "openai-gpt": "openai_gpt",
    "opt": "opt",
    "phi": "phi",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
    "llama": "llama",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "qwen2": "qwen",
    "qwen3": "qwen",
    "qwen2_moe": "qwen",
    "qwen3_moe": "qwen",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
    "phi3": "phi3",
    "olmo": "olmo",
    "olmo2": "olmo",
    "smollm3": "smollm3",
    "cohere": "cohere",
    "nemotron": "nemotron",
    "deepseek_v2": "deepseek",
    "deepseek_v3": "deepseek",
    "gpt_oss": "gpt_oss",
}


def layout_of(config: Mapping[str, Any]) -> Layout:
    """The tensors of a config.json whose model_type is in HUGGING_FACE.

    Raises ConfigError where a field cannot be. Only the module of its family is imported: start-up
    stays fast however many there are.
    """
    module = import_module(f"{__name__}.{HUGGING_FACE[config['model_type']]}")
    layout: Layout = module.layout(config)
    return layout
