"""A larger model's language model: declared by its text_config, under the names that it has in the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures import layout_of
from minilm.architectures.config_fields import Config, flag, is_version_4, sub_config
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.task_heads import WITH_ENCODERS, UndeclaredClassError
from minilm.architectures.vision_tower import Part
from minilm.ledger.layout import Layout, Tensors


@dataclass(frozen=True)
class Model:
    """``text`` is the type of a text_config that says none, ``texts`` types that are others by another name.

    ``text_defaults`` are the fields that it then has, with which text_config there is; ``bare_text`` those
    of a config without one. The text's names are ``inside`` a prefix, head and all, or ``below`` one in
    the place of `model.`. ``vision`` is the tower's type and ``bare_vision`` its fields where config.json
    has no vision_config.
    """

    text: str
    vision: str
    projector: Callable[[Config, Config, str], Tensors]
    buffers: Callable[[Config, Config, str], Tensors] | None = None  # of the projector
    inside: str = ""
    below: str = "model."
    tower: str = "model.vision_tower"
    between: str = "model.multi_modal_projector"
    tied: bool = True
    texts: Mapping[str, str] = field(default_factory=dict)
    text_defaults: Mapping[str, Any] = field(default_factory=dict)
    bare_text: Mapping[str, Any] = field(default_factory=dict)
    has_text_beside: bool = False  # in earlier configs, the fields of the text beside vision_config
    earlier_text: str = ""  # what text_config was called
    bare_vision: Mapping[str, Any] = field(default_factory=dict)
    text_class: str = ""  # where it is not the text's language model alone
    changes: Callable[[Layout, Config], Layout] | None = None  # of the text, under its own names
    second_tower: str = ""  # like the first
    beside: Callable[[Config], Part] | None = None  # a further tower, of another kind
    head: str = ""  # in front of the head's name
    own_ties: bool = False  # as text_config alone says
    text_tied: bool | None = None  # by default, where text_config may tie too
    never_tied: bool = False  # whatever a config says
    with_encoder: tuple[str, ...] = ()  # types of text with an encoder that it may have
    ending: str = WITH_ENCODERS  # of the declared class's name


def under_names(names: Mapping[str, str]) -> Callable[[Layout, Config], Layout]:
    """A change of the text: parts of its names are others."""

    def renamed(name: str) -> str:
        for old, new in names.items():
            name = name.replace(old, new, 1)
        return name

    def change(text: Layout, config: Config) -> Layout:
        del config
        return replace(
            text,
            tensors=tuple(replace(t, name=renamed(t.name)) for t in text.tensors),
            ties=tuple((renamed(head), renamed(table)) for head, table in text.ties),
        )

    return change


def joined(text: Layout, family: str, *parts: Part) -> Layout:
    """The text's layout with what is beside it."""
    return replace(
        text,
        family=family,
        tensors=(*text.tensors, *(tensor for part in parts for tensor in part.tensors)),
        buffers=(*text.buffers, *(tensor for part in parts for tensor in part.buffers)),
        symbols={**text.symbols, **{k: v for part in parts for k, v in part.symbols.items()}},
    )


def text_layout(config: Config, model: Model) -> Layout:
    """The language model, under the names that it has in the larger one."""
    fields = dict(sub_config(config, "text_config", model.text))
    if config.get("text_config") is None:
        beside = config if model.has_text_beside else {}
        named = sub_config(config, model.earlier_text, model.text) if model.earlier_text else {}
        fields = {**model.bare_text, **beside, **named, "model_type": model.text}
    kind = fields.get("model_type") or model.text
    kind = model.texts.get(str(kind), kind)
    entry = MODEL_TYPES.get(str(kind))
    is_whole = entry is not None and entry.by_class and not entry.whole
    if entry is None or (is_whole and kind not in model.with_encoder):
        raise UndeclaredClassError("config.json: text_config", shortened(kind), "a declared type")
    fields = {**model.text_defaults, **fields, "model_type": kind}
    fields["architectures"] = [model.text_class] if model.text_class else None
    if not model.own_ties and (tied := is_tied(config, model)) is not None:
        fields["tie_word_embeddings"] = tied
    text = layout_of(fields)
    if model.changes:
        text = model.changes(text, config)

    def moved(name: str) -> str:
        if model.inside:
            return model.inside + name
        is_body = name.startswith("model.")
        return name.replace("model.", model.below, 1) if is_body else model.head + name

    def renamed(tensors: Tensors) -> Tensors:
        return tuple(replace(tensor, name=moved(tensor.name)) for tensor in tensors)

    return replace(
        text,
        tensors=renamed(text.tensors),
        buffers=renamed(text.buffers),
        mtp=renamed(text.mtp),
        ignored=tuple(map(moved, text.ignored)),
        ties=tuple((moved(head), moved(table)) for head, table in text.ties),
        optional_prefix="",
    )


def is_tied(config: Config, model: Model) -> bool | None:
    """As the type has it: always as the whole config says, or as its text_config does too, or never.

    None: as the text alone would be. So it was where no config says it, before transformers 5.
    """
    text = sub_config(config, "text_config")
    if model.never_tied:
        return False
    if model.text_tied is not None and flag(text, "tie_word_embeddings", model.text_tied):
        return True
    says = [each.get("tie_word_embeddings") is not None for each in (config, text)]
    if is_version_4(config) and not any(says):
        return None
    return is_tied_as_a_whole(config, model.tied)


def is_tied_as_a_whole(config: Config, default: bool) -> bool:
    """As the whole config says; before transformers 5, as its text_config does."""
    if config.get("tie_word_embeddings") is None and is_version_4(config):
        return flag(sub_config(config, "text_config"), "tie_word_embeddings", default)
    return flag(config, "tie_word_embeddings", default)
