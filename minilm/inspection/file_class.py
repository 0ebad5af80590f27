"""Of which class of its model_type a file is, where that is another than config.json names.

BERT's first files, for one, have the heads of both its training tasks and the name of one.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from minilm.architectures import layout_of_class
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.task_heads import class_name_of
from minilm.errors import ConfigError
from minilm.formats.header import Header
from minilm.inspection.names import current_name, is_buffer
from minilm.inspection.target import Target
from minilm.ledger.layout import Layout

_CLASSES = (
    *("ForPreTraining", "ForMaskedLM", "ForConditionalGeneration", "Model", "EncoderModel"),
    *("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"),
    *("ForMultipleChoice", "ForImageClassification"),
)


def as_class_of_file(target: Target, header: Header) -> Target:
    """``target`` as the class whose tensors ``header`` has, with a note; as it is where there is none."""
    entry = MODEL_TYPES.get(target.architecture)
    named = class_name_of(target.hugging_face)
    if target.layout is None or entry is None or not entry.by_class or not named:
        return target
    names = {
        current_name(tensor.name)
        for tensor in header.tensors
        if not is_buffer(tensor.name, tensor.shape)
    }
    if _is_of(target.layout, names):
        return target
    # Frozen tables are computed, and some versions of transformers do not write them.
    stored = tuple(tensor for tensor in target.layout.tensors if not tensor.frozen)
    computed = replace(target.layout, tensors=stored)
    if _is_of(computed, names):
        note = "the file does not hold its positions, which are computed"
        return replace(target, layout=computed, notes=(*target.notes, note))
    for other in _CLASSES:
        config = {**target.hugging_face, "architectures": [other]}
        try:
            layout = layout_of_class(config)
        except ConfigError:
            continue
        if layout is not None and _is_of(layout, names):
            note = f"the file is that of a class {other}; config.json names {named}"
            return replace(target, layout=layout, notes=(*target.notes, note))
    return target


def _is_of(layout: Layout, names: Set[str]) -> bool:
    """Whether a file with these names, which may hold tied tensors twice, is of this layout."""
    copies = {head for head, _ in layout.ties}
    buffers = {tensor.name for tensor in layout.named_tensors(layout.buffers)}
    return {tensor.name for tensor in layout.named_tensors()} == names - copies - buffers
