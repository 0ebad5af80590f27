"""The classes of BERT's kin beside the language models of `bert_decoder.py`: bodies and classifiers.

Names: huggingface/transformers `models/TYPE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.bert_decoder import VARIANTS
from minilm.architectures.bert_decoder import layout as language_model
from minilm.architectures.building_blocks import d, f, norm
from minilm.architectures.config_fields import flag
from minilm.architectures.task_heads import (
    ROBERTA_CLASSES,
    TaskHeads,
    class_name_of,
    head,
    with_class,
    without_head,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
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
    by_labels = family == "electra" and flag(config, "summary_proj_to_labels", False)
    heads = replace(heads, choice_by_labels=by_labels)
    if family == "big_bird" and class_name_of(config).endswith("ForQuestionAnswering"):
        body = without_head(with_class(result, {}, heads))
        bare = (t for t in body.tensors if t.component != components.POOLER)
        return replace(body, tensors=(*bare, *_big_bird_answers("qa_classifier")))
    if family == "electra" and class_name_of(config).endswith("ForPreTraining"):
        name = "discriminator_predictions.dense"
        body = without_head(with_class(result, {}, heads))
        found = head(f"{name}_prediction", ONE, role=Role.MULTIPLIED)
        return replace(body, tensors=(*body.tensors, *head(name, d, role=Role.MULTIPLIED), *found))
    return with_class(result, config, heads)


def _big_bird_answers(name: str) -> tuple[Tensor, ...]:
    """A feed-forward in front of the two places."""
    part, gain = components.CLASSIFIER, f"{name}.output.LayerNorm"
    return (
        *head(f"{name}.intermediate.dense", f, role=Role.MULTIPLIED),
        *head(f"{name}.output.dense", d, inputs=f, role=Role.MULTIPLIED),
        *norm(gain, part, bias=True, repeat=ONE),
        *head(f"{name}.qa_outputs", ONE + ONE, role=Role.MULTIPLIED),
    )
