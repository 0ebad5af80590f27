"""The head on a model's body, which `architectures` in a config.json names.

transformers saves a body alone (LlamaModel), with its language model head (LlamaForCausalLM), or with a
classifier `score` (LlamaForSequenceClassification), and the layouts here are of the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.config_fields import size
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import symbol

LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
WITH_ENCODERS = "ForConditionalGeneration"
CAUSAL = ("ForCausalLM", "LMHeadModel", "BertGenerationDecoder", "XLMWithLMHeadModel")
C, d = symbol("C"), symbol("d")  # classes


def class_name_of(config: Mapping[str, Any]) -> str:
    """The first of `architectures`; empty where the config has none."""
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""


def with_task_head(
    layout: Layout, config: Mapping[str, Any], *, causal_only: bool = False
) -> Layout | None:
    """``layout`` with the head that the config's architecture has; None for one that is not known.

    ``causal_only`` is a layout for the language model alone, in a larger one or beside other classes.
    """
    architecture = class_name_of(config)
    if causal_only:
        return layout if not architecture or architecture.endswith(CAUSAL) else None
    if not architecture or architecture.endswith(LANGUAGE_MODELS):
        return layout
    body = without_head(layout)
    if architecture.endswith("Model"):
        return body
    if architecture.endswith("ForSequenceClassification"):
        labels = config.get("id2label")
        default = len(labels) if isinstance(labels, dict) and labels else 2
        score = Tensor("score.weight", (C, d), components.CLASSIFIER, Role.MULTIPLIED)
        symbols = {**layout.symbols, "C": size(config, "num_labels", default)}
        return replace(body, tensors=(*body.tensors, score), symbols=symbols)
    return None


def without_head(layout: Layout) -> Layout:
    """The body alone."""
    body = tuple(t for t in layout.tensors if t.component != components.LM_HEAD)
    return replace(layout, tensors=body, ties=())
