"""The documents within a file: <|endoftext|> stands between them, as TinyStories and others write it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

END_OF_TEXT = "<|endoftext|>"


def split_documents(texts: Iterable[str]) -> Iterator[Iterator[str]]:
    """Yield the documents of the concatenated ``texts``, each as a stream to be read before the next.

    A separator belongs to no document, nor do the newlines after it. Documents may be empty.
    """
    pieces = _pieces(texts)
    for first in pieces:
        if first is not None:
            rest = itertools.takewhile(lambda piece: piece is not None, pieces)
            yield (piece for piece in itertools.chain([first], rest) if piece is not None)


def _pieces(texts: Iterable[str]) -> Iterator[str | None]:
    """Non-empty pieces of text, and None at each separator."""
    pending = ""
    follows_separator = False
    for text in texts:
        *complete, pending = (pending + text).split(END_OF_TEXT)
        for piece in complete:
            if piece := piece.lstrip("\n") if follows_separator else piece:
                yield piece
            yield None
            follows_separator = True
        if follows_separator:
            pending = pending.lstrip("\n")
        # The end may be the beginning of a separator.
        end = len(pending) - _overlap(pending)
        if end:
            yield pending[:end]
            pending, follows_separator = pending[end:], False
    if pending:
        yield pending


def _overlap(text: str) -> int:
    """The length of the longest end of ``text`` that a separator begins with."""
    return next(
        (size for size in range(len(END_OF_TEXT) - 1, 0, -1) if text.endswith(END_OF_TEXT[:size])),
        0,
    )
