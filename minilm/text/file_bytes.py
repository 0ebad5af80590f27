"""The bytes of a file of text, and the error where it cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from minilm.errors import CorpusError

PIECE_BYTES = 2**20


def pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """What is left of it, in pieces that fit in memory."""
    while piece := stream.read(PIECE_BYTES):
        yield piece


def file_pieces(file: Path) -> Iterator[bytes]:
    """All of a file. Raises CorpusError where it cannot be read."""
    try:
        with file.open("rb") as stream:
            yield from pieces(stream)
    except OSError as error:
        raise unreadable(file, error) from None


def unreadable(file: object, error: OSError) -> CorpusError:
    """The error for a file of which ``error`` says why it cannot be read."""
    return CorpusError(
        file,
        f"cannot be read ({error.strerror or error})",
        "a readable file",
        "fix it or leave it out with a glob",
    )
