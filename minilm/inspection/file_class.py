"""Of which class of its model_type a file is, where config.json names another or none.

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
from minilm.safe_text import short_repr

_CLASSES = (
    *("ForPreTraining", "ForMaskedLM", "ForConditionalGeneration", "Model", "EncoderModel"),
    *("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"),
    *("ForMultipleChoice", "ForImageClassification", "ForCTC"),
    *("ForAudioFrameClassification", "ForXVector"),
)


def as_class_of_file(target: Target, header: Header) -> Target:
    """``target`` as the class whose tensors ``header`` has, with a note; as it is where there is none.

    Where config.json names none either, and a tensor is of none, no class is declared that it could be of.
    """
    entry = MODEL_TYPES.get(target.architecture)
    named = class_name_of(target.hugging_face)
    if target.layout is None or entry is None:
        return target
    if not entry.by_class and not (entry.whole and not named):
        return target
    names = {
        current_name(tensor.name)
        for tensor in header.tensors
        if not is_buffer(tensor.name, tensor.shape)
    }
    layout = _in_file(target.layout, names)
    if layout is not None:
        return replace(
            target, layout=layout, notes=(*target.notes, *_frozen_note(layout, target.layout))
        )
    known = _names(target.layout)
    for other in _CLASSES:
        config = {**target.hugging_face, "architectures": [other]}
        try:
            whole = layout_of_class(config)
        except ConfigError:
            continue
        if whole is None:
            continue
        known |= _names(whole)
        layout = _in_file(whole, names)
        if layout is not None:
            note = f"the file is that of a class {other}; config.json names {named or 'none'}"
            notes = target.notes if named else ()  # what was assumed without the file
            notes = (*notes, note, *_frozen_note(layout, whole))
            return replace(target, layout=layout, notes=notes)
    others = sorted(names - known)
    if others and not named:
        reason = f"{short_repr(others[0])} is of none of its declared classes"
        return replace(target, layout=None, undeclared=reason, notes=())
    return target


def _in_file(layout: Layout, names: Set[str]) -> Layout | None:
    """``layout`` where a file with these names is of it, without the tables that the file leaves out."""
    if _is_of(layout, names):
        return layout
    # Frozen tables are computed, and some versions of transformers do not write them.
    stored = replace(layout, tensors=tuple(t for t in layout.tensors if not t.frozen))
    return stored if _is_of(stored, names) else None


def _frozen_note(layout: Layout, whole: Layout) -> tuple[str, ...]:
    if layout == whole:
        return ()
    return ("the file does not hold its positions, which are computed",)


def _is_of(layout: Layout, names: Set[str]) -> bool:
    """Whether a file with these names, which may hold tied tensors twice, is of this layout."""
    own = {tensor.name for tensor in layout.named_tensors()}
    return own == names - (_names(layout) - own)


def _names(layout: Layout) -> set[str]:
    """Of its tensors, of copies of tied ones, and of its buffers."""
    tensors = (*layout.named_tensors(), *layout.named_tensors(layout.buffers))
    return {tensor.name for tensor in tensors} | {head for head, _ in layout.ties}
