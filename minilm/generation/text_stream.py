"""Tokens to text as they come: whole characters only, and nothing past a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from minilm.text.tokenizers import Tokenizer

REPLACEMENT = "\ufffd"
# A broken end is held back: it may be a character whose last byte is to come. So many tokens without
# one are no text.
LONGEST_HELD = 8


class TextStream:
    """The text of tokens that follow others; ``stopped`` once one of ``stops`` stood in it."""

    def __init__(
        self, tokenizer: Tokenizer, stops: Sequence[str] = (), before: Sequence[int] = ()
    ) -> None:
        """``before`` are the tokens that stand before: some tokenizers drop a space at the very beginning."""
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self._before = list(before[-1:])
        self._held: list[int] = []  # tokens whose text is not whole yet
        self._tail = ""  # text that may be the beginning of a stop string
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is certain with this token."""
        self._held.append(token)
        text = self._decoded()
        if text.endswith(REPLACEMENT) and len(self._held) < LONGEST_HELD:
            return ""
        # A special token has no text: what stands before it is still what comes before.
        self._before = self._held if text else [*self._before, *self._held]
        self._held = []
        return self._checked(text)

    def rest(self) -> str:
        """What was held back, at the end of the tokens."""
        text = self._tail
        if self._held:
            text = self._checked(self._decoded()) + self._tail
        self._held, self._tail = [], ""
        return text

    def _decoded(self) -> str:
        """The text of what is held back, as it reads after the token before."""
        known = self._tokenizer.decode(self._before)
        return self._tokenizer.decode([*self._before, *self._held])[len(known) :]

    def _checked(self, text: str) -> str:
        """``text`` after what is held back, without what may yet be a stop string."""
        if self.stopped:
            return ""
        text = self._tail + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.stopped, self._tail = True, ""
            return text[: min(places)]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._tail = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of ``text`` that ``stop`` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
