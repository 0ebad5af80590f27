"""Whether the validation text differs from the training text, as both ends of a sorted text do.

How well the token frequencies of one text fit another is the loss of a model that knows nothing else. It
is compared with that of the same text split at random, by which rare tokens and small texts cancel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Measured: of source code, documentation and stories up to 0.08 bits a byte in bytes and 0.13 in BPE tokens,
# of sorted lines from 0.12 and 0.27, of which up to 8 % do not occur in training.
LARGEST_GAP = 0.1  # bits a byte
LARGEST_GAP_PER_BYTE = (
    0.025  # more for each further byte in a token: the frequencies of words vary more
)
LARGEST_UNSEEN = 0.01

_BLOCK = 64  # consecutive tokens that stay together
_LARGEST_SAMPLE = 2**21  # tokens of each split
_SMALLEST = 256

Tokens = NDArray[np.unsignedinteger[Any]]


def split_difference(train: Tokens, val: Tokens, vocab_size: int, bytes_per_token: float) -> str:
    """What differs between ``train``, (n,), and ``val``, (m,), in words; "" where they are alike."""
    if min(len(train), len(val)) < _SMALLEST:
        return ""
    first, second = _sample(train), _sample(val)  # (blocks, _BLOCK)
    both = np.concatenate([first, second])
    order = np.random.default_rng(0).permutation(len(both))
    at_random = _compare(both[order[len(second) :]], both[order[: len(second)]], vocab_size)
    here = _compare(first, second, vocab_size)
    unseen = here[0] - at_random[0]
    gap = (here[1] - at_random[1]) / math.log(2) / bytes_per_token
    largest_gap = LARGEST_GAP + LARGEST_GAP_PER_BYTE * (bytes_per_token - 1)
    if unseen <= LARGEST_UNSEEN and gap <= largest_gap:
        return ""
    return (
        f"{here[0]:.1%} of the validation tokens never occur in training ({at_random[0]:.1%} if split at "
        f"random), and training's token frequencies fit it {gap:.2f} bits a byte worse"
    )


def _sample(tokens: Tokens) -> Tokens:
    """Blocks of tokens evenly spread over the text, (blocks, _BLOCK)."""
    blocks = tokens[: len(tokens) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    step = -(-len(tokens) // _LARGEST_SAMPLE)
    return np.asarray(blocks[::step])


def _compare(train: Tokens, val: Tokens, vocab_size: int) -> tuple[float, float]:
    """The share of ``val`` that ``train`` lacks, and the relative entropy of their frequencies in nats."""
    counts = [np.bincount(tokens.ravel(), minlength=vocab_size) for tokens in (train, val)]
    share = counts[1] / counts[1].sum()
    # One more of each token: what does not occur is not impossible.
    expected = (counts[0] + 1) / (counts[0] + 1).sum()
    occurs = share > 0
    unseen = float(share[counts[0] == 0].sum())
    return unseen, float((share[occurs] * np.log(share[occurs] / expected[occurs])).sum())
