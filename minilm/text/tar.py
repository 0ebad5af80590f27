"""A tar as webdataset has them: the files of text and of records in it, each a document or several.

It is read, not extracted, one piece after another.
"""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from minilm.errors import CorpusError
from minilm.text.corpus import Document
from minilm.text.file_bytes import pieces, unreadable

TAR = ".tar"
MEMBERS = {".txt": "", ".json": "json", ".jsonl": "json"}  # what is read, and as what


def tar_documents(file: Path) -> Iterator[Document]:
    """Its MEMBERS, in its order. Raises CorpusError where it is damaged or is not all of a tar."""
    with _errors(file), tarfile.open(file, "r:") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # it would keep them all
            ending = Path(member.name).suffix.lower()
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is not None and ending in MEMBERS:
                yield Document(f"{file}: {member.name}", _pieces(file, stream), MEMBERS[ending])
        _check_end(file, archive.offset)


def _pieces(file: Path, stream: IO[bytes]) -> Iterator[bytes]:
    with _errors(file):
        yield from pieces(stream)


def _check_end(file: Path, offset: int) -> None:
    """Raise TarError where a tar does not end at ``offset``: for tarfile any damaged header is an end."""
    with file.open("rb") as stream:
        stream.seek(offset)
        if not stream.read(1):
            raise tarfile.ReadError("it has no end: perhaps a part of it")
        stream.seek(offset)
        for piece in pieces(stream):
            if piece.count(0) < len(piece):
                raise tarfile.ReadError(f"damaged, or joined with another, at byte {offset:,}")


@contextlib.contextmanager
def _errors(file: Path) -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        raise CorpusError(
            file, f"not read as a tar ({error})", "an uncompressed tar", "leave it out with a glob"
        ) from None
    except OSError as error:
        raise unreadable(file, error) from None
