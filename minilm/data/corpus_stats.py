"""What a corpus is, found by reading it once: its identity, and its size after cleaning."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass

from minilm.errors import CorpusError
from minilm.progress import progress_bar
from minilm.safe_text import one_line
from minilm.text.corpus import Corpus
from minilm.text.records import NULL
from minilm.units import counted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """The raw bytes of all documents in order.

    ``bytes`` is how many, ``sha256`` is over them in hexadecimal (of one file, what sha256sum
    prints), ``boundaries`` is a hash of where the files end and of which format they are.
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
        for piece in document.raw:
            content.update(piece)
            total += len(piece)
        boundaries.update(f"{total} {document.format}".strip().encode() + b"\n")
    return Identity(total, content.hexdigest(), boundaries.hexdigest())


def measure(corpus: Corpus, *, with_notes: bool = True) -> Size:
    """Read and clean the corpus once, and log what was done to it unasked, unless not ``with_notes``.

    Raises CorpusError as the corpus does, and where no text is left.
    """
    documents = characters = utf8_bytes = 0
    notes = Notes()
    with progress_bar(unit="B", unit_scale=True, desc="reading") as bar:
        for chunk in corpus.chunks(note=notes.add):
            documents += chunk.ends_document
            characters += len(chunk.text)
            length = len(chunk.text.encode())
            utf8_bytes += length
            bar.update(length)
    if not characters:
        steps = [f"--clean {','.join(corpus.cleaning)}"] if corpus.cleaning else []
        steps += ["--dedup"] if corpus.duplicates else []
        after = f" after {' and '.join(steps)}" if steps else ""
        nulls = notes.times(NULL)
        after += f", null in {counted(nulls, 'record')}" if nulls else ""
        raise CorpusError(corpus.source, f"no text{after}", "text to train on")
    if with_notes:
        notes.log()
    return Size(documents, characters, utf8_bytes)


class Notes:
    """Notes on files: of each text the first file, and how many more; of NULL how many records, too."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[str, str, int]] = {}  # text -> first, last, how many
        self._times: Counter[str] = Counter()

    def add(self, where: str, text: str) -> None:
        first, last, count = self._files.get(text, (where, "", 0))
        self._files[text] = first, where, count + (where != last)
        self._times[text] += 1

    def times(self, text: str) -> int:
        """How often it was added."""
        return self._times[text]

    def log(self) -> None:
        for text, (first, _, count) in self._files.items():
            others = f" and {count - 1} more" if count > 1 else ""
            records = f" ({counted(self.times(text), 'record')})" if text == NULL else ""
            logger.info(one_line(f"note: {first}{others}: {text}{records}"))
