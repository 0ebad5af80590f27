"""Cut a stream of text into pieces of bounded size, at places where a cut changes nothing.

A cut is made before whitespace that follows something else, before a newline where there is one.
GPT-2's pre-tokenization has a boundary there whatever stands on either side; after a newline it has
none when more whitespace follows, an indented line for instance. And whitespace never composes with
what precedes it, so Unicode normalization is not disturbed either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

CHUNK_CHARACTERS = 2**20


def cut(texts: Iterable[str], size: int = CHUNK_CHARACTERS) -> Iterator[str]:
    """Yield the same text in pieces of at most ``size`` characters, none of them empty.

    The pieces depend on the whole text alone, not on how ``texts`` was cut. A stretch of ``size``
    characters without whitespace is cut at its end.
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
    """The last safe place to cut in start < place <= stop, or ``stop`` if there is none."""
    for separator in ("\n", " "):
        place = text.rfind(separator, start + 1, stop + 1)
        while place > start:
            if not text[place - 1].isspace():
                return place
            place = text.rfind(separator, start + 1, place)
    return stop
