"""Conversations: records of `messages`, or of `prompt` and `completion`, checked and in one form.

The fields are those of instruction data elsewhere: `messages` a list of {"role": ..., "content": ...}, or
one question and its answer as two texts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minilm.errors import CorpusError
from minilm.safe_text import short_repr

ROLES = ("system", "developer", "user", "assistant", "tool")
ANSWERS = "assistant"  # the role whose messages are answers
MESSAGES, PAIR = ("messages",), ("prompt", "completion")


@dataclass(frozen=True)
class Conversation:
    """Messages up to the last answer, each with a role and a content; ``where`` names them in messages."""

    messages: tuple[dict[str, str], ...]
    where: str


def kind_of(record: Any, where: str) -> tuple[str, ...]:
    """The fields that hold the conversation of a record: MESSAGES or PAIR. Raises CorpusError."""
    fields = record if isinstance(record, dict) else {}
    for kind in (MESSAGES, PAIR):
        if all(name in fields for name in kind):
            return kind
    got = f"no {' and no '.join(name for name in (*MESSAGES, *PAIR) if name not in fields)}"
    raise CorpusError(where, got, "messages, or prompt and completion, in each record")


def read_conversation(
    record: Any, kind: tuple[str, ...], where: str, clean: Callable[[str], str]
) -> Conversation:
    """The conversation in the fields ``kind`` of a record, what follows its last answer left out.

    Raises CorpusError that says what the record lacks.
    """
    if not isinstance(record, dict):
        raise CorpusError(where, f"{type(record).__name__} in place of an object", _fields(kind))
    missing = [name for name in kind if name not in record]
    if missing:
        others = {MESSAGES: PAIR, PAIR: MESSAGES}[kind]
        other = f" but {' and '.join(others)}" if all(name in record for name in others) else ""
        got = f"no {' and no '.join(missing)}{other}"
        raise CorpusError(where, got, f"{_fields(kind)}, as the first record has")
    if kind == PAIR:
        entries: Any = [
            {"role": role, "content": record[name]}
            for role, name in zip(("user", ANSWERS), PAIR, strict=True)
        ]
        names = list(PAIR)
    else:
        entries = record["messages"]
        if not isinstance(entries, list):
            raise CorpusError(where, f"messages that are {short_repr(entries)}", "a list")
        names = [f"message {number}" for number in range(1, len(entries) + 1)]
    messages = [
        _message(entry, name, where, clean) for entry, name in zip(entries, names, strict=True)
    ]
    while messages and messages[-1]["role"] != ANSWERS:
        messages.pop()
    if not messages:
        raise CorpusError(where, f"no message of the role {ANSWERS}", "an answer to learn")
    return Conversation(tuple(messages), where)


def _fields(kind: tuple[str, ...]) -> str:
    return f"an object with {' and '.join(kind)}"


def _message(entry: Any, name: str, where: str, clean: Callable[[str], str]) -> dict[str, str]:
    if not isinstance(entry, dict):
        got = f"{name} is {short_repr(entry)}"
        raise CorpusError(where, got, "an object with role and content")
    role, content = entry.get("role"), entry.get("content")
    if role not in ROLES:
        got = f"{name} with the role {short_repr(role)}" if "role" in entry else f"{name}: no role"
        raise CorpusError(where, got, f"one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        got = f"{name}: {short_repr(content)}" if "content" in entry else f"{name}: no content"
        raise CorpusError(where, got, "a text")
    content = clean(content)
    if "\0" in content:
        raise CorpusError(
            where,
            f"{name} with a NUL character",
            "text",
            "remove such characters with --clean control",
        )
    if role == ANSWERS and not content.strip():
        raise CorpusError(where, f"{name}: an empty answer", "a text to learn", "remove the record")
    return {"role": role, "content": content}
