"""Whether the validation text differs from the training text, as both ends of a sorted text do.

How well the token frequencies of one text fit another is the loss of a model that knows nothing else. It
is compared with that of the same text split at random, by which rare tokens and small texts cancel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Measured: of source code, documentation and stories up to 0.08 bits a byte in bytes and 0.13 in BPE tokens,
# of sorted lines from 0.12 and 0.27, of which up to 8 % do not occur in training.
LARGEST_GAP = 0.1  # bits a byte
LARGEST_GAP_PER_BYTE = 0.025  # more for each further byte in a token: words vary more
LARGEST_UNSEEN = 0.01

_BLOCK = 64  # consecutive tokens that stay together
# Of a large text not every page of the file is read.
_STRETCH = 4096
_STRETCHES = 128
_SMALLEST = 256

Tokens = NDArray[np.unsignedinteger[Any]]


def read_sample(files: Sequence[tuple[Path, int]], dtype: str) -> Tokens:
    """Blocks from stretches evenly spread over files, each with its number of tokens, (blocks, _BLOCK).

    They are read, not mapped: mapped pages of a large file would count as this process's memory. What a
    stretch has in the next file is left out.
    """
    ends = np.cumsum([tokens for _, tokens in files])
    num_tokens = int(ends[-1]) if files else 0
    stretches = _STRETCHES if num_tokens > _STRETCH * _STRETCHES else 1
    stretch = _STRETCH if stretches > 1 else num_tokens
    width = np.dtype(dtype).itemsize
    parts = [np.empty(0, dtype)]
    for start in np.linspace(0, num_tokens - stretch, stretches).astype(np.int64).tolist():
        number = int(np.searchsorted(ends, start, side="right"))
        for path, tokens in files[number : number + 1]:
            count = min(stretch, int(ends[number]) - start) // _BLOCK * _BLOCK
            offset = start - (int(ends[number]) - tokens)
            parts.append(np.fromfile(path, dtype, count, offset=offset * width))
    return np.concatenate(parts).reshape(-1, _BLOCK)


def split_difference(train: Tokens, val: Tokens, vocab_size: int, bytes_per_token: float) -> str:
    """What differs between samples, (blocks, _BLOCK) each, in words; "" where they are alike."""
    if min(train.size, val.size) < _SMALLEST:
        return ""
    both = np.concatenate([train, val])
    order = np.random.default_rng(0).permutation(len(both))
    at_random = _compare(both[order[len(val) :]], both[order[: len(val)]], vocab_size)
    here = _compare(train, val, vocab_size)
    unseen = here[0] - at_random[0]
    gap = (here[1] - at_random[1]) / math.log(2) / bytes_per_token
    largest_gap = LARGEST_GAP + LARGEST_GAP_PER_BYTE * (bytes_per_token - 1)
    parts = []
    if unseen > LARGEST_UNSEEN:
        random_share = f"{at_random[0]:.1%} if split at random"
        parts.append(f"{here[0]:.1%} of its tokens do not occur in training ({random_share})")
    if gap > largest_gap:
        parts.append(
            f"training's token frequencies fit it {gap:.2f} bits a byte worse than a random part"
        )
    return ", and ".join(parts)


def _compare(train: Tokens, val: Tokens, vocab_size: int) -> tuple[float, float]:
    """The share of ``val`` that ``train`` lacks, and the relative entropy of their frequencies in nats."""
    counts = [np.bincount(tokens.ravel(), minlength=vocab_size) for tokens in (train, val)]
    share = counts[1] / counts[1].sum()
    # One more of each token: what does not occur is not impossible.
    expected = (counts[0] + 1) / (counts[0] + 1).sum()
    occurs = share > 0
    unseen = float(share[counts[0] == 0].sum())
    return unseen, float((share[occurs] * np.log(share[occurs] / expected[occurs])).sum())
