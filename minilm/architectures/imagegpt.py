"""ImageGPT, which writes pictures: GPT-2 over a vocabulary of colours, with norms without biases.

The last word begins a picture and is never written. Names, shapes and defaults:
huggingface/transformers `models/imagegpt`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures import gpt2
from minilm.architectures.building_blocks import V, d
from minilm.architectures.task_heads import (
    C,
    class_name_of,
    number_of_classes,
    undeclared_class,
    without_head,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor

_DEFAULTS = {
    "vocab_size": 513,
    "n_embd": 512,
    "n_layer": 24,
    "n_head": 8,
    "tie_word_embeddings": False,
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of a class of ImageGPT for a config.json."""
    name = class_name_of(config)
    given = {field: value for field, value in config.items() if value is not None}
    whole = gpt2.layout({**_DEFAULTS, **given})
    tensors = (
        replace(t, shape=(V - 1, d)) if t.component == components.LM_HEAD else t
        for t in whole.tensors
        if not (t.name.endswith(".bias") and ".ln_" in t.name)
    )
    whole = replace(whole, family="imagegpt", tensors=tuple(tensors))
    if not name or name.endswith("ForCausalImageModeling"):
        return whole
    body = without_head(whole)
    if name.endswith("Model"):
        bare = (replace(t, name=t.name.removeprefix("transformer.")) for t in body.tensors)
        return replace(body, tensors=tuple(bare))
    if not name.endswith("ForImageClassification"):
        raise undeclared_class(config)
    score = Tensor("score.weight", (C, d), components.CLASSIFIER, Role.MULTIPLIED)
    symbols = {**body.symbols, "C": number_of_classes(config)}
    return replace(body, tensors=(*body.tensors, score), symbols=symbols)
