"""Of which class of its model_type a file is, where config.json names another or none.

BERT's first files, for one, have the heads of both its training tasks and the name of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace

from minilm.architectures import layout_of_class
from minilm.architectures.ignored_weights import IgnoredWeights, ignored_weights
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.task_heads import class_name_of, is_body
from minilm.errors import ConfigError
from minilm.formats.header import Header
from minilm.inspection.comparison import body_prefix, outer_prefix
from minilm.inspection.module_names import with_names_of_file, with_tensors_of_modules
from minilm.inspection.names import current_name, declared_name, is_buffer
from minilm.inspection.stored_experts import with_experts_of_file
from minilm.inspection.target import Target
from minilm.ledger.layout import Layout
from minilm.safe_text import short_repr

_CLASSES = (
    *("ForPreTraining", "ForMaskedLM", "ForConditionalGeneration", "Model", "EncoderModel"),
    *("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"),
    *("ForMultipleChoice", "ForNextSentencePrediction", "ForImageClassification", "ForCTC"),
    *("ForAudioFrameClassification", "ForXVector", "ForObjectDetection", "ForSegmentation"),
)


def as_class_of_file(target: Target, header: Header) -> Target:
    """``target`` as the class whose tensors ``header`` has, with a note; as it is where there is none.

    Where config.json names none either, and a head is of none, no class is declared that it could be of.
    """
    entry = MODEL_TYPES.get(target.architecture)
    named = class_name_of(target.hugging_face)
    if target.layout is None or entry is None:
        return target
    stored = {tensor.name: tensor.shape for tensor in header.tensors}
    target = replace(target, layout=_as_stored(target.layout, stored))
    if entry.by_class or (entry.whole and not named):
        classes: tuple[str, ...] = _CLASSES
    elif not named:
        classes = ("ForSequenceClassification",)
    else:
        return target
    assert target.layout is not None
    declared, unread = _names(target.layout), ignored_weights(target.hugging_face)
    shapes = {
        tensor.name if tensor.name in declared else current_name(tensor.name): tensor.shape
        for tensor in header.tensors
        if not is_buffer(tensor.name, tensor.shape)
    }
    names = shapes.keys()
    stored_as = _in_file(target.layout, names, unread, body_alone=is_body(named))
    if stored_as is not None:
        layout, left_out = stored_as
        return replace(target, layout=layout, notes=(*target.notes, *left_out))
    known, found = declared, []
    for other in classes:
        config = {**target.hugging_face, "architectures": [other]}
        try:
            whole = layout_of_class(config)
        except ConfigError:
            continue
        if whole is None:
            continue
        whole = _as_stored(with_names_of_file(whole, names), shapes)
        known |= _names(whole)
        stored_as = _in_file(whole, names, unread, body_alone=is_body(other))
        if stored_as is not None:
            found.append((other, *stored_as))
    if found:
        # Some classes differ by the shape of their head alone.
        other, layout, left_out = next((each for each in found if _fits(each[1], shapes)), found[0])
        note = f"the file is that of a class {other}; config.json names {named or 'none'}"
        notes = target.notes if named else ()  # what was assumed without the file
        return replace(target, layout=layout, notes=(*notes, note, *left_out))
    heads = [
        name
        for name in sorted(names - known)
        if _is_of_head(name, target.layout) and not unread.is_other(name, known)
    ]
    if heads and not named:
        reason = f"{short_repr(heads[0])} is of none of its declared classes"
        return replace(target, layout=None, undeclared=reason, notes=())
    return target


def _as_stored(layout: Layout, shapes: Mapping[str, tuple[int, ...]]) -> Layout:
    """``layout`` with experts, and other parts of modules, as a file with these ``shapes`` has them."""
    return with_tensors_of_modules(with_experts_of_file(layout, shapes), shapes.keys())


def _in_file(
    layout: Layout, names: Set[str], unread: IgnoredWeights, *, body_alone: bool
) -> tuple[Layout, tuple[str, ...]] | None:
    """What of ``layout`` a file with these names has, where it is of it, and a note of what it leaves out."""
    outer = outer_prefix(_names(layout), names)
    names = {name.removeprefix(outer) for name in names}
    if _is_of(layout, names, unread):
        return layout, ()
    # Some versions of transformers do not write what is computed.
    stored = replace(layout, tensors=tuple(t for t in layout.tensors if not t.frozen))
    if _is_of(stored, names, unread):
        return stored, ("the file does not hold its positions, which are computed",)
    # A body can be built with add_pooling_layer=False, which config.json does not say.
    bare = tuple(t for t in layout.tensors if ".pooler." not in f".{t.name}")
    stored = replace(layout, tensors=bare)
    if body_alone and len(bare) < len(layout.tensors) and _is_of(stored, names, unread):
        return stored, ("the file holds the body without its pooler",)
    return None


def _is_of(layout: Layout, names: Set[str], unread: IgnoredWeights) -> bool:
    """Whether a file with these names, which may hold tied tensors twice, is of this layout."""
    own = {tensor.name for tensor in layout.named_tensors()}
    return own <= names and all(
        unread.is_next_token(name) or unread.is_other(name, own)
        for name in names - own - _names(layout)
    )


def _is_of_head(name: str, layout: Layout) -> bool:
    """Whether it may be a head's: of no body, which may have lost its prefix, and of no next-token module."""
    prefix = body_prefix(layout)
    full = {tensor.name for tensor in layout.tensors}
    if declared_name(prefix + name, full) in full:
        return False
    parts = {each.partition(".")[0] for each in full | {n.removeprefix(prefix) for n in full}}
    return name.endswith((".weight", ".bias")) and name.partition(".")[0] not in {*parts, "mtp"}


def _fits(layout: Layout, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return all(shapes.get(t.name) in (None, t.shape) for t in layout.named_tensors())


def _names(layout: Layout) -> set[str]:
    """Of its tensors, of copies of tied ones, and of its buffers."""
    tensors = (*layout.named_tensors(), *layout.named_tensors(layout.buffers))
    return {tensor.name for tensor in tensors} | {head for head, _ in layout.ties}
