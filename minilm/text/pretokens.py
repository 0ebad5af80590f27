"""GPT-2's pre-tokens of a text, split by Python's `re`, and the tokens of each, kept while words recur.

The tokenizers library splits and merges every word anew, at less than half the speed.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable
from itertools import chain

import numpy as np
from numpy.typing import NDArray

# GPT-2's pattern (openai/gpt-2, encoder.py), for characters of which letters, digits and spaces are known.
_PATTERN = (
    r"'(?:s|t|re|ve|m|ll|d)| ?[{letter}]+| ?[{digit}]+| ?[^{space}{letter}{digit}]+"
    r"|[{space}]+(?![^{space}])|[{space}]+"
)
_ASCII = re.compile(_PATTERN.format(letter="A-Za-z", digit="0-9", space=r"\t-\r "))
# Of Unicode's White_Space.
_SPACES = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"

MOST_WORDS = 2**16
LONGEST_WORD = 32  # characters; longer ones recur seldom


class WordTokens(dict[str, list[int]]):
    """The tokens of each word by ``encode``, which is asked once while the word is kept."""

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, word: str) -> list[int]:
        ids = self._encode(word)
        if len(word) <= LONGEST_WORD:
            if len(self) >= MOST_WORDS:
                self.clear()
            self[word] = ids
        return ids

    def of(self, words: Iterable[str]) -> NDArray[np.int64]:
        """The tokens of all ``words``, (n,)."""
        return np.fromiter(chain.from_iterable(map(self.__getitem__, words)), np.int64)


def split(text: str) -> list[str] | None:
    """The pre-tokens of ``text``; None where a character may be of another kind in the library.

    The library has tables of its own. They agree on what Unicode 3.2 had in its first plane.
    """
    if text.isascii():
        return _ASCII.findall(text)
    pattern, unknown = _unicode()
    return None if unknown.search(text) else pattern.findall(text)


@functools.cache
def _unicode() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The pattern for characters that are known, and what finds another one."""
    old = unicodedata.ucd_3_2_0
    known = [c for c in map(chr, range(0x10000)) if old.category(c) not in ("Cn", "Cs", "Co")]
    letters, digits = (
        _ranges(c for c in known if unicodedata.category(c)[0] == kind) for kind in "LN"
    )
    pattern = _PATTERN.format(letter=letters, digit=digits, space=_SPACES)
    return re.compile(pattern), re.compile(f"[^{_ranges(known)}]")


def _ranges(characters: Iterable[str]) -> str:
    """The inside of a character class."""
    bounds: list[list[int]] = []
    for number in map(ord, characters):
        if bounds and number == bounds[-1][1] + 1:
            bounds[-1][1] = number
        else:
            bounds.append([number, number])
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in bounds)
