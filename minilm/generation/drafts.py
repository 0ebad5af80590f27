"""Drafts of the next tokens: what followed when the last tokens stood in the text before.

One pass of the model then looks at several tokens at once, and those that it would have chosen anyway are
taken (prompt lookup decoding; speculative decoding: Leviathan et al. 2023, arXiv:2211.17192). Each token is
still chosen from the model's own logits with the same random numbers, so in float32 the text is the same as
without. In 16 bits several rows at once round differently from one.
"""

from __future__ import annotations

from collections.abc import Sequence

SIZES = (3, 2)  # of what is looked up, the longer one first


class Drafts:
    """Of one text that grows."""

    def __init__(self, count: int) -> None:
        """``count``: tokens of a draft, at most."""
        self.count = count
        self._followed: dict[tuple[int, ...], int] = {}  # where what followed these tokens begins
        self._indexed = 0

    def next(self, text: Sequence[int], at_most: int) -> list[int]:
        """What may follow ``text``: no tokens where its end is new."""
        for end in range(self._indexed, len(text)):
            for size in SIZES:
                if end >= size:
                    self._followed[tuple(text[end - size : end])] = end
        self._indexed = len(text)
        for size in SIZES:
            begin = self._followed.get(tuple(text[-size:]))
            if len(text) >= size and begin is not None:
                return list(text[begin : begin + max(0, min(self.count, at_most))])
        return []
