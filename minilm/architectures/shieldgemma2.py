"""ShieldGemma 2, which says whether a picture breaks a rule: Gemma 3, whose words yes and no are read.

Transformers 5 writes Gemma 3's names below another `model.` than 4 did. Names, shapes and defaults:
huggingface/transformers `models/shieldgemma2`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures import gemma3
from minilm.architectures.config_fields import flag, is_version_4, sub_config
from minilm.architectures.task_heads import class_name_of, undeclared_class
from minilm.ledger.layout import Layout

_HEAD = "lm_head.weight"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of ShieldGemma2ForImageClassification for a config.json."""
    name, text = class_name_of(config), sub_config(config, "text_config")
    if name and not name.endswith("ForImageClassification"):
        raise undeclared_class(config)
    is_older = is_version_4(config)
    tied = flag(text, "tie_word_embeddings", True) or flag(config, "tie_word_embeddings", False)
    whole = gemma3.layout(
        {
            **config,
            "tie_word_embeddings": tied,
            "transformers_version": "4." if is_older else "5.",
        }
    )

    def below(inner: str) -> str:
        if is_older:
            return f"model.{inner}"
        return f"model.{_HEAD}" if inner.endswith(_HEAD) else f"model.model.{inner}"

    return replace(
        whole,
        family="shieldgemma2",
        tensors=tuple(replace(tensor, name=below(tensor.name)) for tensor in whole.tensors),
        ties=tuple((below(head), below(table)) for head, table in whole.ties),
    )
