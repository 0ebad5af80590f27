"""Which row of an n-gram table a token reads: a hash of it and of those before it.

Hashed n-gram embeddings: Huang et al. 2025 (arXiv:2501.16975). The hash is part of the file format: with
another, a trained table would be read at the wrong rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# A prime below 2^31 and a factor below it: products stay within 63 bits on every device.
PRIME = 2**31 - 1
FACTOR = 1_000_003


def ngram_rows(tokens: Tensor, longest: int, rows: int) -> Tensor:
    """(b, t) token ids -> (b, t, longest - 1): where the bigram, trigram, ... ending at each token is.

    The table of each length has ``rows`` rows, and they stand one below the other. Before the first
    token comes a sign of its own, which is no token.
    """
    t, signs = tokens.shape[1], tokens + 1
    key, found = signs, []
    for distance in range(1, longest):
        shift = min(distance, t)
        earlier = F.pad(signs[:, : t - shift], (shift, 0))
        key = (key * FACTOR + earlier) % PRIME
        found.append(key % rows + (distance - 1) * rows)
    return torch.stack(found, dim=2)
