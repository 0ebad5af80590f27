"""One turn of a conversation: the answer as it is generated, and what there is to say about it."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING

from minilm.cli.generation_notes import computed_by, note, note_fallback, print_rate
from minilm.safe_text import running_text

if TYPE_CHECKING:
    from minilm.generation.chat import Chat


def answer(chat: Chat, message: str, *, as_json: bool, dtype_option: str) -> None:
    """Print the answer to ``message``, if that is not empty; the rate goes to stderr.

    ``dtype_option``: what --dtype says.
    """
    if not message.strip():
        return
    text, dropped_before, began_with = "", chat.dropped_turns, chat.decoder
    is_streaming = False
    try:
        with contextlib.closing(chat.answer(message)) as parts:
            for part in parts:
                text += part
                if not as_json:
                    is_streaming = True
                    sys.stdout.write(running_text(part))
                    sys.stdout.flush()
    finally:
        if is_streaming:
            print(flush=True)
    if as_json:
        line = {"prompt": message, "text": text, "tokens": chat.tokens, **computed_by(chat.decoder)}
        print(json.dumps(line), flush=True)
    note_fallback(began_with, chat.decoder)
    if dropped := chat.dropped_turns - dropped_before:
        turns = "turn was" if dropped == 1 else f"{dropped} turns were"
        note(f"the oldest {turns} dropped: the context has no room for more")
    if chat.was_cut:
        note("the answer was cut: the context is full")
    if chat.tokens:
        print_rate(len(chat.tokens), chat.seconds, chat.decoder, dtype_option)
