"""Tokens to text as they come: whole characters only, and nothing from a stop string on."""

from __future__ import annotations

from collections.abc import Sequence

from minilm.text.tokenizers import Tokenizer

REPLACEMENT = "\ufffd"
# Text that ends in a broken character is held back: its last bytes may be still to come. After so many tokens
# they will not.
MAX_PENDING_TOKENS = 8


class TextStream:
    """The text of tokens that follow others; ``stopped`` once it had one of ``stops`` in it."""

    def __init__(
        self, tokenizer: Tokenizer, stops: Sequence[str] = (), prompt: Sequence[int] = ()
    ) -> None:
        """``prompt``: the tokens before the first one; some tokenizers drop a space at the very beginning."""
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self._previous = list(prompt[-1:])  # tokens that the next ones are decoded after
        self._pending_tokens: list[int] = []  # their text does not end in a whole character yet
        self._pending_text = ""  # may be the beginning of a stop string
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is certain with this token."""
        self._pending_tokens.append(token)
        text = self._decode_pending()
        if text.endswith(REPLACEMENT) and len(self._pending_tokens) < MAX_PENDING_TOKENS:
            return ""
        # A special token has no text: the next one is decoded after what stands before it, too.
        self._previous = self._pending_tokens if text else [*self._previous, *self._pending_tokens]
        self._pending_tokens = []
        return self._before_stop(text)

    def flush(self) -> str:
        """The text that was held back, at the end of the tokens."""
        text = self._pending_text
        if self._pending_tokens:
            text = self._before_stop(self._decode_pending()) + self._pending_text
        self._pending_tokens, self._pending_text = [], ""
        return text

    def _decode_pending(self) -> str:
        """The text of the pending tokens, as it reads after the previous ones."""
        previous_text = self._tokenizer.decode(self._previous)
        return self._tokenizer.decode([*self._previous, *self._pending_tokens])[
            len(previous_text) :
        ]

    def _before_stop(self, text: str) -> str:
        """The pending text and ``text``, up to a stop string or what may become one."""
        assert not self.stopped, "nothing is added to a text that ended"
        text = self._pending_text + text
        starts = [start for stop in self._stops if (start := text.find(stop)) >= 0]
        if starts:
            self.stopped, self._pending_text = True, ""
            return text[: min(starts)]
        pending = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._pending_text = text[len(text) - pending :]
        return text[: len(text) - pending]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of ``text`` that are the beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
