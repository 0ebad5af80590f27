"""A part of a text as a file, for runs on less than all of it."""

from __future__ import annotations

from pathlib import Path

from minilm import files
from minilm.text.corpora import open_corpus


def write_excerpt(
    source: str, folder: Path, first: int | None = None, last: int | None = None
) -> str:
    """Write ``folder``/part.txt and return its name: the ``first`` characters, of those the ``last``."""
    corpus = open_corpus(source, cache=folder)
    text = "".join(chunk.text for chunk in corpus.chunks())[:first]
    path = folder / "part.txt"
    files.write_bytes(path, (text[-last:] if last else text).encode())
    return str(path)
