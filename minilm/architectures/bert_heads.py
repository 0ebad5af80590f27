"""The classes of BERT's kin beside the language models of `bert_decoder.py`: bodies and classifiers.

Names: huggingface/transformers `models/TYPE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.bert_decoder import VARIANTS
from minilm.architectures.bert_decoder import layout as language_model
from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import flag
from minilm.architectures.task_heads import (
    ROBERTA_CLASSES,
    TaskHeads,
    class_name_of,
    head,
    with_class,
    without_head,
)
from minilm.ledger.layout import Layout, Role
from minilm.ledger.symbols import ONE

_OTHERS: dict[str, dict[str, Any]] = {
    "bert": {"order": "cls.seq_relationship"},
    "bert-generation": {"pooler": ""},
    "big_bird": {
        **ROBERTA_CLASSES,
        "order": "cls.seq_relationship",
        "pooler": "pooler",
        "keeps_pooler": True,
        "answers": "",
    },
    "electra": {**ROBERTA_CLASSES, "pooler": "", "choice": "sequence_summary.summary"},
    "ernie": {"order": "cls.seq_relationship"},
    "megatron-bert": {"order": "cls.seq_relationship"},
    "rembert": {},
    "roc_bert": {},
    "roformer": {**ROBERTA_CLASSES, "pooler": "", "answers_are_two": True},
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of these types' other classes for a config.json."""
    family = config["model_type"]
    result = language_model(config)
    heads = TaskHeads(f"{VARIANTS[family].prefix}.", **_OTHERS.get(family, ROBERTA_CLASSES))
    if not flag(config, "summary_use_proj", True):
        heads = replace(heads, choice="")
    if family == "electra" and class_name_of(config).endswith("ForPreTraining"):
        name = "discriminator_predictions.dense"
        body = without_head(with_class(result, {}, heads))
        found = head(f"{name}_prediction", ONE, role=Role.MULTIPLIED)
        return replace(body, tensors=(*body.tensors, *head(name, d, role=Role.MULTIPLIED), *found))
    return with_class(result, config, heads)
