"""A corpus: an ordered set of documents that can be streamed repeatedly.

Only the current chunk is in memory, so a corpus may be larger than memory. Documents are raw bytes;
`Corpus.chunks` decodes them, takes the texts out of records, separates those in one text, and cleans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import CorpusError
from minilm.text import records
from minilm.text.chunking import split_into_chunks
from minilm.text.cleaning import clean, normalize_line_ends
from minilm.text.conversations import Conversation, kind_of, read_conversation
from minilm.text.decoding import decode
from minilm.text.records import is_conversation, json_values
from minilm.text.separators import split_documents


@dataclass(frozen=True)
class Document:
    """The raw bytes of a file or a dataset's row, in pieces; ``where`` names it in messages.

    It is one document unless it has separators or its ``format`` is one of `records.FORMATS`; a file of
    records is at the path ``where``.
    """

    where: str
    raw: Iterable[bytes]
    format: str = ""


@dataclass(frozen=True)
class Chunk:
    """A non-empty chunk of a document's cleaned text; `minilm.text.chunking` chooses its end."""

    text: str
    ends_document: bool


@dataclass(frozen=True)
class Corpus:
    """An ordered set of documents.

    ``name`` is a valid folder name; ``source`` is the user's text; ``cleaning`` are the steps in the
    order of application; ``documents`` starts a new pass over the raw bytes. ``text_field`` is the one
    asked for. With ``raw_text`` a file is one document as it is, line ends and all. A mixture has ``parts``,
    each with its weight; its documents are theirs in order. ``duplicates`` says which of the documents that
    have text are left out, found as ``dedup`` says.
    """

    name: str
    source: str
    cleaning: tuple[str, ...]
    documents: Callable[[], Iterator[Document]]
    text_field: str | None = None
    raw_text: bool = False
    parts: tuple[tuple[Corpus, float], ...] = ()
    dedup: str = ""
    duplicates: Callable[[], NDArray[np.bool_]] | None = None

    def chunks(
        self,
        observe: Callable[[bytes], object] | None = None,
        note: records.Note = lambda where, text: None,
    ) -> Iterator[Chunk]:
        """Yield the cleaned text, the same in each call; documents without text are skipped.

        ``observe`` is called with all raw bytes, as they are read, ``note`` with a file's name and what was
        done to it unasked. Raises CorpusError for a file that cannot be read or is not text.
        """
        number = 0
        duplicates = None if self.duplicates is None else self.duplicates()
        for chunk in self._all_chunks(observe, note):
            # A text that has changed since may have more documents, which is found by its hash.
            if duplicates is None or not duplicates[number : number + 1].any():
                yield chunk
            number += chunk.ends_document

    def _all_chunks(
        self, observe: Callable[[bytes], object] | None, note: records.Note
    ) -> Iterator[Chunk]:
        for document in self.documents():
            raw = document.raw if observe is None else _observe(document.raw, observe)
            for text in self._texts(document, raw, note):
                previous = None
                for chunk in split_into_chunks(clean(text, self.cleaning)):
                    if previous is not None:
                        yield Chunk(previous, ends_document=False)
                    previous = chunk
                if previous is not None:
                    yield Chunk(previous, ends_document=True)

    def _texts(
        self, document: Document, raw: Iterable[bytes], note: records.Note
    ) -> Iterator[Iterator[str]]:
        """The documents in ``document``, each as a stream to be read before the next."""
        where = document.where
        if document.format == "parquet":
            for _ in raw:  # pyarrow reads the file by itself
                pass
            stored = ([text] for text in records.parquet_texts(where, self.text_field, note))
        else:
            texts = self._decoded(where, raw, note)
            if self.raw_text:
                yield texts
                return
            texts = _without_mark(texts)
            if not document.format:
                yield from split_documents(_with_newlines(texts, where, note))
                return
            read = records.json_texts if document.format == "json" else records.csv_texts
            stored = ([text] for text in read(texts, where, self.text_field, note))
        for number, record in enumerate(stored, 1):
            if "\0" in record[0] and "control" not in self.cleaning:
                raise CorpusError(
                    f"{where} record {number}",
                    "a NUL character",
                    "text",
                    "remove such characters with --clean control",
                )
            yield from split_documents(_with_newlines(record, where, note))

    def has_conversations(self) -> bool:
        """Whether its first file is of JSON, and its first record a conversation, or has such columns."""
        if self.raw_text or self.text_field is not None:
            return False
        first = next(self.documents(), None)
        if first is None:
            return False
        if first.format == "parquet":
            return records.parquet_has_conversations(first.where)
        if first.format != "json":
            return False
        records_of_first = self._records(first, lambda where, text: None)
        return is_conversation(next(records_of_first, (None, ""))[0])

    def conversations(self, note: records.Note) -> Iterator[Conversation]:
        """Its records as conversations, cleaned. Raises CorpusError for what is none."""
        kind: tuple[str, ...] = ()
        for document in self.documents():
            if document.format not in ("json", "parquet"):
                raise CorpusError(document.where, "text beside conversations", "one of the two")
            for record, place in self._records(document, note):
                kind = kind or kind_of(record, place)
                yield read_conversation(record, kind, place, self._clean_message)

    def _records(self, document: Document, note: records.Note) -> Iterator[tuple[Any, str]]:
        """Those of a file that may hold conversations, and where each is."""
        where = document.where
        if document.format == "parquet":
            for number, row in enumerate(records.parquet_conversations(where), 1):
                yield row, f"{where} row {number}"
            return
        texts = _without_mark(self._decoded(where, document.raw, note))
        for record, line in json_values(texts, where):
            yield record, f"{where} line {line}"

    def _clean_message(self, text: str) -> str:
        lines = normalize_line_ends([records.without_lone_surrogates(text)])
        return "".join(clean(lines, self.cleaning))

    def _decoded(self, where: str, raw: Iterable[bytes], note: records.Note) -> Iterator[str]:
        return decode(
            raw,
            where,
            replace_invalid="encoding" in self.cleaning,
            allow_nul="control" in self.cleaning,
            note=note,
        )


def _without_mark(texts: Iterable[str]) -> Iterator[str]:
    first = True
    for text in texts:
        if text := text.removeprefix("\ufeff") if first else text:
            yield text
        first = False


def _with_newlines(texts: Iterable[str], where: str, note: records.Note) -> Iterator[str]:
    """The texts with every kind of line end as a newline, as Python reads text."""

    def noticed() -> Iterator[str]:
        for text in texts:
            if "\r" in text:
                note(where, r"line ends \r\n and \r are read as \n (--raw-text keeps them)")
            yield text

    return normalize_line_ends(noticed())


def _observe(raw: Iterable[bytes], observe: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in raw:
        observe(piece)
        yield piece
