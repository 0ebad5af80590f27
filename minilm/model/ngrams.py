"""Which row of an n-gram table a token reads: a hash of it and of those before it.

Hashed n-gram embeddings: Huang et al. 2025 (arXiv:2501.16975). The hash is part of the file format: with
another, a trained table would be read at the wrong rows.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

# A prime below 2^31 and a factor below it: products stay within 63 bits on every device.
PRIME = 2**31 - 1
FACTOR = 1_000_003


def ngram_rows(tokens: Tensor, n: int, rows: int) -> Tensor:
    """(b, t) token ids -> (b, t) rows, 0 <= row < ``rows``, of the n-grams that end at each token.

    Before the first token comes a sign of its own, which is no token.
    """
    t, signs = tokens.shape[1], tokens + 1
    key = signs
    for distance in range(1, n):
        distance = min(distance, t)
        key = (key * FACTOR + F.pad(signs[:, : t - distance], (distance, 0))) % PRIME
    return key % rows
