"""What a corpus is, found by reading it once: its identity, and its size after cleaning."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from minilm.errors import CorpusError
from minilm.progress import progress_bar
from minilm.text.corpora import Corpus


@dataclass(frozen=True)
class Identity:
    """The raw bytes of all documents in order.

    ``bytes`` is how many, ``sha256`` is over them in hexadecimal (of one file, what sha256sum
    prints), ``boundaries`` is a hash of where the documents end.
    """

    bytes: int
    sha256: str
    boundaries: str


@dataclass(frozen=True)
class Size:
    """The cleaned text: its documents (those with text left), characters, and bytes as UTF-8."""

    documents: int
    characters: int
    utf8_bytes: int


def identify(corpus: Corpus) -> Identity:
    """Read the raw bytes once, neither decoded nor cleaned. Raises CorpusError as they do."""
    content = hashlib.sha256()
    boundaries = hashlib.sha256()
    total = 0
    for document in corpus.documents():
        for block in document.blocks:
            content.update(block)
            total += len(block)
        boundaries.update(b"%d\n" % total)
    return Identity(total, content.hexdigest(), boundaries.hexdigest())


def measure(corpus: Corpus) -> Size:
    """Read and clean the corpus once. Raises CorpusError as it does, and where no text is left."""
    documents = characters = utf8_bytes = 0
    with progress_bar(unit="B", unit_scale=True, desc="reading") as bar:
        for chunk in corpus.chunks():
            documents += chunk.ends_document
            characters += len(chunk.text)
            length = len(chunk.text.encode())
            utf8_bytes += length
            bar.update(length)
    if not characters:
        after = f" after --clean {','.join(corpus.cleaning)}" if corpus.cleaning else ""
        raise CorpusError(corpus.source, f"no text{after}", "text to train on")
    return Size(documents, characters, utf8_bytes)
