"""Granite as transformers stores it: Llama, with four factors in config.json that its tensors can take.

Fields and defaults: huggingface/transformers `models/granite/configuration_granite.py` and
`modeling_granite.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures import llama
from minilm.architectures.config_fields import number
from minilm.architectures.conversion import Importable
from minilm.architectures.shared_fields import Fields, read_gated
from minilm.config import ModelConfig
from minilm.errors import ConfigError
from minilm.ledger.layout import Layout


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of GraniteForCausalLM for a config.json."""
    return replace(llama.layout(config), family="granite")


def _minilm_fields(fields: Fields) -> dict[str, Any]:
    # The two factors of a tied table differ.
    return {**read_gated(fields), "tied_embeddings": False}


def _factors(fields: Fields, config: ModelConfig) -> dict[str, float]:
    logits_scaling = number(fields, "logits_scaling", 1.0)
    if not logits_scaling:
        raise ConfigError("config.json: logits_scaling", "0", "another number")
    residual = number(fields, "residual_multiplier", 1.0)
    attention = number(fields, "attention_multiplier", 1.0) * math.sqrt(config.head_dim)
    return {
        "embedding.token.weight": number(fields, "embedding_multiplier", 1.0),
        "attention.query.weight": attention,
        "attention.query.bias": attention,
        "attention.output.weight": residual,
        "attention.output.bias": residual,
        "feed_forward.down.weight": residual,
        "feed_forward.down.bias": residual,
        "lm_head.weight": 1 / logits_scaling,
    }


IMPORTABLE = (Importable("granite", layout, _minilm_fields, _factors),)
