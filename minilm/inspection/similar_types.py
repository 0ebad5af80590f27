"""Which declared model_type has the fields of a config.json whose own is not declared."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from minilm.architectures import layout_of, layout_of_class
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.task_heads import CAUSAL, class_name_of
from minilm.errors import InputError
from minilm.ledger.components import AUDIO, VISION
from minilm.ledger.layout import Layout
from minilm.units import counted

# Of several with the same fields, the one that most models are like.
_COMMON = (
    *("llama", "qwen3", "mixtral", "qwen3_moe", "deepseek_v3", "gpt2", "gpt_neox", "bloom", "phi"),
    "bert",
)
# Of many types alike, or of few tensors.
_SAYS_LITTLE = {"model_type", "architectures", "max_position_embeddings"}
_OF_TOWERS = ("vision", "visual", "image", "img_", "audio", "speech")  # in a field's name
_FEWEST_FIELDS = 3  # of a config.json, that must matter to a declaration for it to be offered


def similar_types(config: Mapping[str, Any]) -> list[str]:
    """The model_types to whose tensors most fields of ``config`` matter, the commonest first; maybe none.

    A field matters if the tensors are others without it, or with another value. What a type has of its own
    and ``config`` does not give counts against it. One with a text_config is of the type that has such a
    one. Declarations are built with one field changed: a second or two.
    """
    text = config.get("text_config")
    if isinstance(text, Mapping):
        texts = {entry.text_of: name for name, entry in MODEL_TYPES.items() if entry.text_of}
        found = texts.get(str(text.get("model_type")))
        return [found] if found else []
    fields = config.keys() - _SAYS_LITTLE
    # Of as many fields, a language model rather than an encoder or a larger model.
    others = MODEL_TYPES.keys() - set(_COMMON)
    names = [*_COMMON, *sorted(others, key=lambda name: (MODEL_TYPES[name].by_class, name))]
    is_causal = class_name_of(config).endswith(CAUSAL)
    candidates = []
    for place, name in enumerate(names):
        entry = MODEL_TYPES[name]
        if entry.same_as or (is_causal and entry.by_class):
            continue
        layout = _layout({**config, "model_type": name})
        if layout is not None:
            candidates.append((_own_sizes(layout, config), place, name, layout))
    best: list[tuple[int, str]] = []
    most = _FEWEST_FIELDS
    for own, place, name, layout in sorted(candidates, key=lambda candidate: candidate[:2]):
        if len(fields) - own < most:
            break  # nor can any that follows be better
        matter = _fields_that_matter({**config, "model_type": name}, fields, layout, most + own)
        if matter - own > most:
            best, most = [], matter - own
        if matter - own == most:
            best.append((place, name))
    return [name for _, name in sorted(best)]


def advice(config: Mapping[str, Any]) -> str:
    """What to do with a config.json whose model_type is not declared, as the end of a line."""
    similar = [name for name in similar_types(config) if _is_declared_class(config, name)]
    if not similar:
        return ""
    first, *others = similar
    more = f", and of {counted(len(others), 'other type')}" if others else ""
    offered = {**config, "model_type": first}
    left_out, unread = uncounted_parts(offered), " and ".join(_unread_sizes(offered))
    without = f", which does not count {left_out}" if left_out else ""
    without += f"; {unread} would mean nothing there" if unread else ""
    return f"its fields are those of {first}{more}; inspect with --as {first}{without}"


def _unread_sizes(config: Mapping[str, Any]) -> list[str]:
    """The whole numbers of ``config`` that matter to nothing of its type: the model may have more parts."""
    layout = _layout(config)
    return [
        name
        for name, value in config.items()
        if type(value) is int and value > 1 and not name.endswith(("_id", "_index", "_seed"))
        if name not in _SAYS_LITTLE and all(_layout(c) == layout for c in _changes(config, name))
    ]


def _is_declared_class(config: Mapping[str, Any], model_type: str) -> bool:
    """Whether the class that ``config`` names is declared of that type: else --as ends in an error."""
    try:
        return layout_of_class({**config, "model_type": model_type}) is not None
    except InputError:
        return False


def uncounted_parts(config: Mapping[str, Any]) -> str:
    """The fields of ``config`` with towers over pictures or sounds, where its type has none."""
    layout = layout_of_class(config)
    if layout is None or layout.count(components=(VISION, AUDIO)):
        return ""
    return " and ".join(
        name
        for name, value in config.items()
        if ("tower" in name and value)
        or (isinstance(value, Mapping) and any(word in name for word in _OF_TOWERS))
    )


def _own_sizes(layout: Layout, config: Mapping[str, Any]) -> int:
    """How many sizes of the type the config does not give: its experts, its latents, its defaults."""
    width, heads = (layout.symbols.get(letter, 0) for letter in "dh")
    usual = {4 * width, width // max(1, heads)}  # of the feed-forward, and of a head
    given = {*_numbers(config), *usual}
    return sum(value not in given for value in layout.symbols.values())


def _numbers(value: object) -> Iterator[int]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif type(value) is int:
        yield value


def check_declared(model_type: str) -> None:
    """Raise InputError where there is no such declaration."""
    if model_type not in MODEL_TYPES:
        close = get_close_matches(model_type, MODEL_TYPES, n=3)
        remedy = f"perhaps {' or '.join(close)}" if close else "see `minilm architectures`"
        raise InputError("--as", repr(model_type), "a model_type that is declared", remedy)


def _fields_that_matter(
    config: Mapping[str, Any], names: Collection[str], layout: Layout, least: int
) -> int:
    """How many of ``names`` do, counted until they cannot be ``least``: nearly all types end there soon."""
    matter, tensors = len(names), _tensors(layout)
    for name in names:
        if all(_tensors(_layout(changed)) == tensors for changed in _changes(config, name)):
            matter -= 1
        if matter < least:
            return 0
    return matter


def _tensors(layout: Layout | None) -> object:
    """What a field may matter to; where attention ends matters to no tensor."""
    return layout and (layout.tensors, layout.ties, layout.symbols)


def _changes(fields: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The fields without one of them, and with another value of it: it may be the default."""
    yield {key: value for key, value in fields.items() if key != name}
    if isinstance(fields[name], bool):
        yield {**fields, name: not fields[name]}
    elif isinstance(fields[name], int):
        yield {**fields, name: 2 * fields[name]}


def _layout(config: Mapping[str, Any]) -> Layout | None:
    try:
        return layout_of(config)
    except InputError:
        return None
