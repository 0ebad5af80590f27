"""One turn of a conversation: the answer as it is generated, and what there is to say about it."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING

from minilm.safe_text import running_text
from minilm.units import counted

if TYPE_CHECKING:
    from minilm.generation.chat import Chat


def answer(chat: Chat, message: str, *, as_json: bool) -> None:
    """Print the answer to ``message``, if that is not empty; the rate goes to stderr."""
    if not message.strip():
        return
    text, dropped_before = "", chat.dropped_turns
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
        print(json.dumps({"prompt": message, "text": text, "tokens": chat.tokens}), flush=True)
    if dropped := chat.dropped_turns - dropped_before:
        turns = "turn was" if dropped == 1 else f"{dropped} turns were"
        _note(f"the oldest {turns} dropped: the context has no room for more")
    if chat.was_cut:
        _note("the answer was cut: the context is full")
    if chat.tokens:
        print(
            f"{counted(len(chat.tokens), 'token')}, {len(chat.tokens) / chat.seconds:.1f} tokens/s",
            file=sys.stderr,
        )


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
