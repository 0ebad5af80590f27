"""Which declared model_type has the fields of a config.json whose own is not declared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from minilm.architectures import layout_of
from minilm.architectures.model_types import MODEL_TYPES
from minilm.errors import InputError
from minilm.ledger.layout import Layout

# Of several with the same fields, the one that most models are like.
_COMMON = ("llama", "qwen3", "qwen3_moe", "deepseek_v3", "gpt2", "gpt_neox", "bert")
_FEWEST_FIELDS = 3  # of a config.json, that must matter to a declaration for it to be offered


def similar_type(config: Mapping[str, Any]) -> str | None:
    """The model_type to whose tensors most fields of ``config`` matter; None where few do.

    A field matters if the tensors are others without it, or with another value. What a type has of its own
    and ``config`` does not give counts against it. One with a text_config is of the type that has such a
    one. Declarations are built with one field changed: a second or two.
    """
    text = config.get("text_config")
    if isinstance(text, Mapping):
        texts = {entry.text_of: name for name, entry in MODEL_TYPES.items() if entry.text_of}
        return texts.get(str(text.get("model_type")))
    # Of as many fields, a language model rather than an encoder or a larger model.
    others = MODEL_TYPES.keys() - set(_COMMON)
    names = [*_COMMON, *sorted(others, key=lambda name: (MODEL_TYPES[name].by_class, name))]
    candidates = []
    for place, name in enumerate(names):
        layout = _layout({**config, "model_type": name})
        if layout is not None and not MODEL_TYPES[name].same_as:
            candidates.append((_own_sizes(layout, config), place, name, layout))
    fields = len(config.keys() - {"model_type"})
    best, most = None, -fields
    for own, _, name, layout in sorted(candidates, key=lambda candidate: candidate[:2]):
        if fields - own <= most:
            break  # nor can any that follows be better
        matter = _fields_that_matter(config, name, layout, max(most + own, _FEWEST_FIELDS - 1))
        if matter - own > most and matter:
            best, most = name, matter - own
    return best


def _own_sizes(layout: Layout, config: Mapping[str, Any]) -> int:
    """How many sizes of the type the config does not give: its experts, its latents, its defaults."""
    given = set(_numbers(config))
    return sum(value not in given for value in layout.symbols.values())


def _numbers(value: object) -> Iterator[int]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif type(value) is int:
        yield value


def advice(config: Mapping[str, Any]) -> str:
    """What to do with a config.json whose model_type is not declared, as the end of a line."""
    similar = similar_type(config)
    return f"its fields are those of {similar}; inspect with --as {similar}" if similar else ""


def check_declared(model_type: str) -> None:
    """Raise InputError where there is no such declaration."""
    if model_type not in MODEL_TYPES:
        close = get_close_matches(model_type, MODEL_TYPES, n=3)
        remedy = f"perhaps {' or '.join(close)}" if close else "see `minilm architectures`"
        raise InputError("--as", repr(model_type), "a model_type that is declared", remedy)


def _fields_that_matter(
    config: Mapping[str, Any], model_type: str, layout: Layout, most: int
) -> int:
    """How many matter, counted until they cannot be more than ``most``: nearly all types end there soon."""
    fields = {**config, "model_type": model_type}
    names = config.keys() - {"model_type"}
    matter = len(names)
    for name in names:
        if not any(_layout(changed) != layout for changed in _changes(fields, name)):
            matter -= 1
        if matter <= most:
            return 0
    return matter


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
