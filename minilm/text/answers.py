"""Which tokens of a conversation are its answers: what a chat template wrote, encoded once, with a mask.

A conversation is rendered and encoded whole, since a prompt encoded alone may be no prefix of it. Where an
answer begins and ends is found in the text: what the template writes for the messages before it, up to where
an answer begins, and for the messages up to it, are prefixes of the whole. A token that covers any
character of an answer is of the answer, a merge of both sides of the seam too: or the first word of
an answer would never be learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minilm.errors import FormatError
from minilm.text.chat_template import ChatTemplate
from minilm.text.conversations import ANSWERS, Conversation
from minilm.text.tokenizers import Tokenizer

_PROBE = "An answer."


@dataclass(frozen=True)
class Answered:
    """A conversation as tokens, ``ids`` (n,), up to the last of an answer, and which ``are_answers``, (n,).

    ``text_bytes`` and ``answer_bytes`` are those of the text as UTF-8, of the answers without what ends them.
    ``masked`` counts answers that the template writes otherwise once others follow: they are not learned.
    """

    ids: NDArray[np.int64]
    are_answers: NDArray[np.bool_]
    text_bytes: int
    answer_bytes: int
    masked: int
    digest: bytes


def answered(
    conversations: Sequence[Conversation], template: ChatTemplate, tokenizer: Tokenizer
) -> Iterator[Answered]:
    """Each conversation as tokens. Raises FormatError for what the template does not write."""
    special = np.array(sorted({*tokenizer.special_tokens.values()}), np.int64)
    opening = _opening(template)
    turns = [_answers(conversation) for conversation in conversations]
    # Those of the whole conversations; of what is before each answer; of what is up to each but the last.
    wholes = template.render_all(each.messages for each in conversations)
    before = template.render_all(
        (
            each.messages[:turn]
            for each, of_each in zip(conversations, turns, strict=True)
            for turn in of_each
        ),
        add_generation_prompt=True,
    )
    upto = template.render_all(
        each.messages[: turn + 1]
        for each, of_each in zip(conversations, turns, strict=True)
        for turn in of_each[:-1]
    )
    for conversation, of_each in zip(conversations, turns, strict=True):
        spans, masked = [], 0
        try:
            whole = next(wholes)
            for turn in of_each:
                is_last = turn == of_each[-1]
                start, end = next(before), whole if is_last else next(upto)
                if whole.startswith(start) and whole.startswith(end) and len(start) < len(end):
                    begin = len(start)
                    begin += len(opening) * whole.startswith(opening, begin)
                    spans.append((begin, len(end)))
                elif is_last:
                    got = "a template whose prompt does not begin what it writes with the answer"
                    expected = "one in which an answer follows its prompt"
                    raise FormatError(template.name, got, expected)
                else:
                    masked += 1
        except FormatError as error:
            raise FormatError(
                f"{conversation.where}: {error.where}", error.got, error.expected
            ) from None
        yield _encoded(whole, spans, tokenizer, special, masked)


def _answers(conversation: Conversation) -> list[int]:
    """Which messages are answers."""
    return [n for n, message in enumerate(conversation.messages) if message["role"] == ANSWERS]


def _opening(template: ChatTemplate) -> str:
    """What a template writes between its prompt and an answer, spaces alone left aside.

    That is of the prompt: the header of an answer where the template has no prompt of its own, or an empty
    thought. "" where a conversation of two messages does not show it.
    """
    question = {"role": "user", "content": "A question."}
    try:
        prompt = template.render([question], add_generation_prompt=True)
        whole = template.render([question, {"role": ANSWERS, "content": _PROBE}])
    except FormatError:
        return ""
    place = whole.rfind(_PROBE)
    opening = whole[len(prompt) : place]
    return opening if whole.startswith(prompt) and place >= 0 and opening.strip() else ""


def _encoded(
    whole: str,
    spans: Sequence[tuple[int, int]],
    tokenizer: Tokenizer,
    special: NDArray[np.int64],
    masked: int,
) -> Answered:
    ids, starts, ends = tokenizer.chat_spans(whole)
    are_answers = np.zeros(len(ids), dtype=bool)
    are_special = np.isin(ids, special)
    answer_bytes = 0
    for start, end in spans:
        text_end = end
        inside = (starts < end) & (ends > start) & (ends > starts)
        marks = np.flatnonzero(inside & are_special)
        # What ends a turn is its last special token; the line end after that is the next turn's.
        if len(marks) and not whole[ends[marks[-1]] : end].strip():
            inside[marks[-1] + 1 :] = False
            text_end = int(starts[marks[-1]])
        are_answers |= inside
        answer_bytes += len(whole[start:text_end].encode())
    length = int(np.flatnonzero(are_answers)[-1]) + 1 if are_answers.any() else 0
    return Answered(
        ids[:length],
        are_answers[:length],
        len(whole.encode()),
        answer_bytes,
        masked,
        hashlib.sha256(whole.encode()).digest(),
    )
