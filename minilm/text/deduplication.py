"""Documents that are there more than once: the first stays, the others are left out.

    exact   the same text, by 16 bytes of its SHA-256
    near    at least 80% of the sequences of five words in either are in both (Jaccard similarity, estimated
            by MinHash: Broder 1997), by the library rensa, an extra

Near duplicates are of a document that stays: not of one that is left out itself, by which long chains would
be left out whole (https://github.com/marin-community/marin/issues/6854). Sequences of words, not of
characters, which long texts on any subject share.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from minilm.errors import MissingExtraError
from minilm.progress import progress_bar
from minilm.safe_text import one_line

if TYPE_CHECKING:
    from minilm.text.corpus import Chunk, Corpus

Mode = Literal["exact", "near"]

SIMILARITY = 0.8
WORDS = 5
_HASHES, _BANDS, _SEED = 128, 16, 1  # a pair of that similarity is found with a probability of 95%
_DIGEST_BYTES = 16

logger = logging.getLogger(__name__)


def method(mode: Mode) -> str:
    """The method, with the version of the library that decides. Raises MissingExtraError without it."""
    if mode == "exact":
        return mode
    if importlib.util.find_spec("rensa") is None:
        raise MissingExtraError("rensa", "dedup", "--dedup near")
    return f"near {SIMILARITY} {WORDS} {_HASHES} {_BANDS} {importlib.metadata.version('rensa')}"


def find_duplicates(corpora: Sequence[Corpus], mode: Mode) -> list[NDArray[np.bool_]]:
    """Of each corpus which documents are duplicates, (documents,), of it or of those before it.

    Logs how many these are.
    """
    counts: list[int] = []
    with progress_bar(unit="B", unit_scale=True, desc="comparing") as bar:

        def documents() -> Iterator[Iterator[str]]:
            for corpus in corpora:
                counts.append(0)
                for document in _documents(corpus.chunks()):
                    counts[-1] += 1
                    yield (_counted(text, bar) for text in document)

        duplicates = (_exact if mode == "exact" else _near)(documents())
    parts = np.split(duplicates, np.cumsum(counts)[:-1])
    for corpus, part in zip(corpora, parts, strict=True):
        share = part.mean() if len(part) else 0.0
        logger.info(
            one_line(
                f"note: {corpus.source}: {part.sum():,} of {len(part):,} documents ({share:.1%}) are {mode} "
                "duplicates and left out"
            )
        )
    return parts


def _counted(text: str, bar: Any) -> str:
    bar.update(len(text.encode()))
    return text


def _documents(chunks: Iterable[Chunk]) -> Iterator[Iterator[str]]:
    """The text of each document in pieces, to be read before the next."""
    stream = iter(chunks)

    def rest(chunk: Chunk) -> Iterator[str]:
        yield chunk.text
        while not chunk.ends_document:
            chunk = next(stream)
            yield chunk.text

    for first in stream:
        yield rest(first)


def _exact(documents: Iterable[Iterable[str]]) -> NDArray[np.bool_]:
    digests = bytearray()  # 16 bytes of each document are in memory, nothing else
    for document in documents:
        digest = hashlib.sha256()
        for text in document:
            digest.update(text.encode())
        digests += digest.digest()[:_DIGEST_BYTES]
    halves = np.frombuffer(digests, np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: of equal ones the first is first
    repeats = np.zeros(len(order), dtype=bool)
    repeats[order[1:]] = (halves[order[1:]] == halves[order[:-1]]).all(axis=1)
    return repeats


def _near(documents: Iterable[Iterable[str]]) -> NDArray[np.bool_]:
    rensa = importlib.import_module("rensa")
    index = rensa.RMinHashLSH(threshold=SIMILARITY, num_perm=_HASHES, num_bands=_BANDS)
    originals: dict[int, Any] = {}
    are_duplicates: list[bool] = []
    for number, document in enumerate(documents):
        signature = rensa.RMinHash(num_perm=_HASHES, seed=_SEED)
        for sequences in _word_sequences(document):
            signature.update(sequences)
        similar = (
            originals[other].jaccard(signature) >= SIMILARITY for other in index.query(signature)
        )
        is_duplicate = any(similar)
        are_duplicates.append(is_duplicate)
        if not is_duplicate:
            index.insert(number, signature)
            originals[number] = signature
    return np.array(are_duplicates, dtype=bool)


def _word_sequences(texts: Iterable[str]) -> Iterator[list[str]]:
    """Every sequence of WORDS words; of a document with fewer, all of them."""
    before: list[str] = []  # words that begin a sequence with those of the next text
    is_short = True
    for text in texts:
        words = before + text.split()
        starts = range(len(words) - WORDS + 1)
        if starts:
            yield [" ".join(words[start : start + WORDS]) for start in starts]
            is_short = False
        before = words[max(0, len(words) - WORDS + 1) :]
    if is_short:
        yield [" ".join(before)]
