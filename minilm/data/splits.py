"""Which text is validation: its end, whole documents, or shuffled documents or lines.

    position   the first characters train, the rest validates; a document may be cut
    document   whole documents validate, drawn at random; all stay in their order
    shuffle    units, documents or the lines of a single one, validate as drawn, and each side is shuffled

What is drawn depends only on the text, so that runs with other seeds compare.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from minilm.data.corpus_stats import Size
from minilm.errors import CorpusError
from minilm.text.chunking import CHUNK_CHARACTERS
from minilm.text.corpus import Corpus

SEED = 0

Mode = Literal["position", "document", "shuffle"]


@dataclass(frozen=True)
class Piece:
    """Text of one side of the split. Where it ends a unit, that and its document are complete."""

    split: str
    text: str
    ends_document: bool
    ends_unit: bool


@dataclass(frozen=True)
class Split:
    """A corpus divided; ``characters`` in all, ``pieces`` starts a pass in the corpus's order."""

    characters: int
    shuffled: bool
    pieces: Callable[..., Iterator[Piece]]


def divide(corpus: Corpus, size: Size, mode: Mode, val_fraction: float) -> Split:
    """Divide ``corpus``, whose measure is ``size``; other modes than position read it once more.

    Raises CorpusError where there is only one unit.
    """
    if mode == "position":
        boundary = int(size.characters * (1 - val_fraction))
        return Split(size.characters, False, functools.partial(_by_position, corpus, boundary))
    by_line = mode == "shuffle" and size.documents == 1
    lengths = _unit_lengths(corpus, by_line)
    if len(lengths) < 2:
        raise CorpusError(
            corpus.source,
            f"one {'line' if by_line else 'document'} with --split {mode}",
            "several",
            "use --split position" if by_line else "use --split position or shuffle",
        )
    validates = draw(lengths, val_fraction)
    return Split(
        int(lengths.sum()),
        mode == "shuffle",
        functools.partial(_by_unit, corpus, by_line, validates),
    )


def shuffled_order(num_units: int) -> NDArray[np.int64]:
    """The order of ``num_units`` units after shuffling, (num_units,)."""
    return np.random.default_rng(SEED).permutation(num_units)


def _by_position(
    corpus: Corpus, boundary: int, observe: Callable[[bytes], object] | None = None
) -> Iterator[Piece]:
    characters = 0
    for chunk in corpus.chunks(observe):
        cut = min(max(boundary - characters, 0), len(chunk.text))
        characters += len(chunk.text)
        train, val = chunk.text[:cut], chunk.text[cut:]
        # The document ends with its last character, on whichever side of the split that is.
        if train:
            yield Piece("train", train, chunk.ends_document and not val, False)
        if val:
            yield Piece("val", val, chunk.ends_document, False)


def _by_unit(
    corpus: Corpus,
    by_line: bool,
    validates: NDArray[np.bool_],
    observe: Callable[[bytes], object] | None = None,
) -> Iterator[Piece]:
    number = 0
    for text, ends_unit in _units(corpus, by_line, observe):
        if number == len(validates):
            return  # the text has changed, which the caller sees by its hash
        split = "val" if validates[number] else "train"
        yield Piece(split, text, ends_unit and not by_line, ends_unit)
        number += ends_unit


def _units(
    corpus: Corpus, by_line: bool, observe: Callable[[bytes], object] | None = None
) -> Iterator[tuple[str, bool]]:
    """Text, and whether it ends a unit."""
    chunks = corpus.chunks(observe)
    if not by_line:
        for chunk in chunks:
            yield chunk.text, chunk.ends_document
        return
    pending = ""
    is_line_open = False  # its beginning was yielded
    for chunk in chunks:
        *lines, pending = (pending + chunk.text).split("\n")
        for line in lines:
            yield line + "\n", True
            is_line_open = False
        if len(pending) > CHUNK_CHARACTERS:
            yield pending, False
            pending, is_line_open = "", True
    if pending or is_line_open:
        yield pending + "\n", True  # it may come to stand before another line


def _unit_lengths(corpus: Corpus, by_line: bool) -> NDArray[np.int64]:
    """The characters of each unit, (num_units,)."""
    lengths, length = array("q"), 0
    for text, ends_unit in _units(corpus, by_line):
        length += len(text)
        if ends_unit:
            lengths.append(length)
            length = 0
    assert length == 0, "the last unit has no end"
    return np.array(lengths, dtype=np.int64)


def draw(lengths: NDArray[np.int64], val_fraction: float) -> NDArray[np.bool_]:
    """Units of together at most ``val_fraction`` of the characters, at least one, not all."""
    validates = np.zeros(len(lengths), dtype=bool)
    room = lengths.sum() * val_fraction
    for unit in np.random.default_rng(SEED).permutation(len(lengths)):
        if lengths[unit] <= room:
            validates[unit] = True
            room -= lengths[unit]
    if not validates.any():
        validates[lengths.argmin()] = True
    return validates
