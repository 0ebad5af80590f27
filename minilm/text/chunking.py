"""Split a stream of text into chunks of bounded size without changing its tokens.

A chunk ends before whitespace that follows a non-space character, preferably before a newline. There
GPT-2's pre-tokenization always has a boundary; after a newline it has none if more whitespace follows,
as in an indented line. Unicode normalization is not affected either: whitespace never composes with
the character before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

CHUNK_CHARACTERS = 2**20


def split_into_chunks(texts: Iterable[str], size: int = CHUNK_CHARACTERS) -> Iterator[str]:
    """Yield the concatenated ``texts`` in chunks of 1 to ``size`` characters.

    The chunks depend only on the whole text, not on how it is divided into ``texts``. A run of
    ``size`` characters without whitespace is split at its end.
    """
    pending = ""
    for text in texts:
        pending += text
        start = 0
        while len(pending) - start > size:
            end = _last_boundary(pending, start, start + size)
            yield pending[start:end]
            start = end
        pending = pending[start:]
    if pending:
        yield pending


def _last_boundary(text: str, start: int, stop: int) -> int:
    """The last boundary in start < position <= stop, or ``stop`` if there is none."""
    for separator in ("\n", " "):
        position = text.rfind(separator, start + 1, stop + 1)
        while position > start:
            if not text[position - 1].isspace():
                return position
            position = text.rfind(separator, start + 1, position)
    return stop
