"""Batches of token windows: a pure function of (seed, step), so the step is all there is to save.

Legend: b batch size, t context length, n tokens of a split, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minilm.data.token_store import Tokens

IGNORED = -100  # the target that torch's cross_entropy leaves out by default

GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)  # its fractional part, in units of 2**-64

Windows = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Batch:
    """What a forward pass takes: inputs and targets, (b, t) each, and how many ``tokens`` are in it.

    Where several documents share a row, a third array has the position of each token in its own.
    """

    arrays: tuple[NDArray[np.int64], ...]
    tokens: int

    def __len__(self) -> int:
        return len(self.arrays[0])

    @property
    def labels(self) -> int:
        """How many targets count."""
        return int((self.arrays[1] != IGNORED).sum())

    def rows(self, part: slice) -> Batch:
        """These rows of it."""
        if part == slice(0, len(self)):
            return self
        arrays = tuple(array[part] for array in self.arrays)
        return Batch(arrays, self.tokens * len(arrays[0]) // len(self))

    def with_a_label(self) -> Batch:
        """Itself, or with one target that counts where none does, as a mean needs one."""
        if self.labels:
            return self
        targets = self.arrays[1].copy()
        targets[0, 0] = 0
        return Batch((self.arrays[0], targets, *self.arrays[2:]), self.tokens)


def joined(batches: Sequence[Batch]) -> Batch:
    """The rows of all, whose lengths are one."""
    if len(batches) == 1:
        return batches[0]
    alike = zip(*(batch.arrays for batch in batches), strict=True)
    return Batch(tuple(map(np.concatenate, alike)), sum(batch.tokens for batch in batches))


def training_batch(
    tokens: Tokens,
    *,
    context_length: int,
    batch_size: int,
    seed: int,
    step: int,
    micro_step: int = 0,
    fractions: NDArray[np.float64] | None = None,
    merges: NDArray[np.int64] | None = None,
    undo_probability: float = 0.0,
) -> Windows:
    """Return inputs and targets, (b, t) each: random windows, and the same windows one token later.

    ``tokens``, (n,), n > t; every window of t + 1 tokens is equally likely. The same (seed, step,
    micro_step), each >= 0, gives the same bytes on every machine. ``fractions``, (b,), say
    where the windows are instead (`even_fractions`). With ``merges``, (V, 2), of a BPE tokenizer each merge
    is undone with the probability ``undo_probability`` (`undo_merges`).
    """
    assert len(tokens) > context_length, "prepare() checks this"
    random = batch_random(seed, step, micro_step)
    places = len(tokens) - context_length
    if fractions is None:
        starts = random.integers(0, places, size=batch_size)
    else:
        starts = (fractions * places).astype(np.int64)
    return training_windows(tokens, starts, context_length, random, merges, undo_probability)


def even_fractions(seed: int, passes: int, rows: int, length: int) -> NDArray[np.float64]:
    """Where in a text the windows of the batch after ``passes`` others begin, (rows,) in [0, 1).

    The multiples of the golden ratio, modulo 1, from a random number on: any successive ones are nearly
    evenly spread (Weyl 1916). Each ``length`` of windows has its own.
    """
    first = np.random.default_rng([seed, length]).integers(2**64, dtype=np.uint64)
    numbers = np.arange(passes * rows, (passes + 1) * rows, dtype=np.uint64)
    multiples = first + numbers * GOLDEN_RATIO  # modulo 2**64
    fractions: NDArray[np.float64] = (multiples >> np.uint64(11)) * 2.0**-53
    return fractions


def batch_random(seed: int, step: int, micro_step: int) -> np.random.Generator:
    """The generator of all that is drawn for a batch."""
    return np.random.default_rng([seed, step, micro_step])


def training_windows(
    tokens: Tokens,
    starts: NDArray[np.int64],
    context_length: int,
    random: np.random.Generator,
    merges: NDArray[np.int64] | None,
    undo_probability: float,
) -> Windows:
    """Inputs and targets, (b, t) each, of the windows at ``starts``, (b,)."""
    windows = np.empty((len(starts), context_length + 1), np.int64)  # b t+1
    for window, start in zip(windows, starts.tolist(), strict=True):
        window[:] = tokens[start : start + context_length + 1]
    if merges is not None and undo_probability > 0:
        windows = undo_merges(windows, merges, undo_probability, random)
    return windows[:, :-1], windows[:, 1:]


def document_positions(inputs: NDArray[np.int64], end_of_text: int) -> NDArray[np.int64]:
    """The position of each token, (b, t), in its own document, which an ``end_of_text`` ends.

    The first of a row is at 0, be it the first of its document or not.
    """
    place = np.arange(inputs.shape[1])
    begins = np.zeros(inputs.shape, dtype=bool)
    begins[:, 1:] = inputs[:, :-1] == end_of_text
    firsts: NDArray[np.int64] = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    return place - firsts


def undo_merges(
    windows: NDArray[np.int64],
    merges: NDArray[np.int64],
    probability: float,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """(b, t) tokens -> (b, t): each merge undone with the ``probability``, the surplus cut off.

    Subword augmentation after BPE-dropout (Provilkov et al. 2020, arXiv:1910.13267), which drops merges
    while it encodes: here those of the finished encoding are taken back, so no other merge takes their
    place, and no text is encoded again.
    """
    b, t = windows.shape
    tokens, row = windows.reshape(-1), np.repeat(np.arange(b), t)
    open_to_change = np.ones(len(tokens), dtype=bool)
    while True:
        split = (
            open_to_change & (merges[tokens, 0] >= 0) & (random.random(len(tokens)) < probability)
        )
        if not split.any():
            break
        pieces = 1 + split
        first = np.cumsum(pieces) - pieces
        parts = merges[tokens[split]]
        tokens, row = np.repeat(tokens, pieces), np.repeat(row, pieces)
        open_to_change = np.zeros(len(tokens), dtype=bool)  # a merge that was kept is kept
        for side in (0, 1):
            tokens[first[split] + side] = parts[:, side]
            open_to_change[first[split] + side] = True
    position = np.arange(len(tokens)) - np.searchsorted(row, np.arange(b))[row]
    shortened: NDArray[np.int64] = tokens[position < t].reshape(b, t)
    return shortened


def validation_windows(
    tokens: Tokens, *, context_length: int, batch_size: int, at_most: int = 0
) -> Iterator[Windows]:
    """Yield inputs and targets, (b, t) each, over windows that do not overlap.

    Each of the n - 1 targets of ``tokens``, (n,), comes exactly once; where ``at_most`` is fewer than
    that, only as many whole windows as fill it, at least one, evenly spread over the text. All batches
    have one shape: what the text does not fill has input 0 and target IGNORED.
    """
    starts = window_starts(len(tokens), context_length=context_length, at_most=at_most)
    for first in range(0, len(starts), batch_size):
        inputs = np.zeros((batch_size, context_length), dtype=np.int64)
        targets = np.full((batch_size, context_length), IGNORED, dtype=np.int64)
        for row, start in enumerate(starts[first : first + batch_size].tolist()):
            window = np.asarray(tokens[start : start + context_length + 1]).astype(np.int64)
            inputs[row, : len(window) - 1] = window[:-1]
            targets[row, : len(window) - 1] = window[1:]
        yield inputs, targets


def window_starts(tokens: int, *, context_length: int, at_most: int = 0) -> NDArray[np.int64]:
    """Where the windows of `validation_windows` begin in a text of so many tokens."""
    windows = math.ceil((tokens - 1) / context_length)
    return evenly_spread(windows, tokens - 1, context_length, at_most) * context_length


def evenly_spread(rows: int, places: int, length: int, at_most: int) -> NDArray[np.int64]:
    """Which of ``rows`` rows of ``length``, ``places`` in all, are evaluated.

    As many whole ones as fill ``at_most``, at least one; all where that is 0 or not fewer than there are.
    """
    count = max(1, at_most // length) if 0 < at_most < places else rows
    return np.arange(count, dtype=np.int64) * rows // count
