"""Batches of token windows: a pure function of (seed, step), so the step is all there is to save.

Legend: b batch size, t context length, n tokens of a split.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORED = -100  # the target that torch's cross_entropy leaves out by default

Tokens = NDArray[np.unsignedinteger[Any]]
Batch = tuple[NDArray[np.int64], NDArray[np.int64]]


def training_batch(
    tokens: Tokens,
    *,
    context_length: int,
    batch_size: int,
    seed: int,
    step: int,
    micro_step: int = 0,
) -> Batch:
    """Return inputs and targets, (b, t) each: random windows, and the same windows one token later.

    ``tokens``, (n,), n > t; every window of t + 1 tokens is equally likely. The same (seed, step,
    micro_step), each >= 0, gives the same bytes on every machine.
    """
    assert len(tokens) > context_length, "prepare() checks this"
    # The largest array first: a batch that does not fit into memory fails at once.
    places = np.empty((batch_size, context_length + 1), np.int64)  # b t+1
    random = np.random.default_rng([seed, step, micro_step])
    starts = random.integers(0, len(tokens) - context_length, size=batch_size)
    np.add(starts[:, None], np.arange(context_length + 1), out=places)
    windows = np.asarray(tokens)[places].astype(np.int64)
    return windows[:, :-1], windows[:, 1:]


def validation_windows(tokens: Tokens, *, context_length: int, batch_size: int) -> Iterator[Batch]:
    """Yield inputs and targets, (b, t) each, over consecutive windows that do not overlap.

    Each of the n - 1 targets of ``tokens``, (n,), comes exactly once. All batches have one shape:
    what the text does not fill has input 0 and target IGNORED.
    """
    step = batch_size * context_length
    for start in range(0, len(tokens) - 1, step):
        block = np.asarray(tokens[start : start + step + 1]).astype(np.int64)
        inputs = np.zeros(step, dtype=np.int64)
        targets = np.full(step, IGNORED, dtype=np.int64)
        inputs[: len(block) - 1] = block[:-1]
        targets[: len(block) - 1] = block[1:]
        shape = (batch_size, context_length)
        yield inputs.reshape(shape), targets.reshape(shape)  # (b t) -> b t
