"""A part of a text as a file, for runs on less than all of it."""

from __future__ import annotations

from pathlib import Path

from minilm.text.corpora import open_corpus


def write_part(source: str, folder: Path, first: int | None = None, last: int | None = None) -> str:
    """The first characters of a source, of those the last: folder/part.txt, whose name is returned."""
    corpus = open_corpus(source, cache=folder)
    text = "".join(chunk.text for chunk in corpus.chunks())[:first]
    part = folder / "part.txt"
    part.write_text(text[-last:] if last else text, encoding="utf-8")
    return str(part)
