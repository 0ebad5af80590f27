"""The rows of an n-gram table that a token reads: hashes of it and of the tokens before it.

Hashed n-gram embeddings: Huang et al. 2025 (arXiv:2501.16975). The hash is part of the file format: a trained
table is useless with another.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# A prime below 2^31 and a factor below it: products stay within 63 bits on every device.
PRIME = 2**31 - 1
FACTOR = 1_000_003


def ngram_rows(tokens: Tensor, longest: int, rows: int, positions: Tensor | None = None) -> Tensor:
    """(b, t) token ids -> (b, t, longest - 1): rows of the bigram, trigram, ... that end at each token.

    The table of each length has ``rows`` rows; the tables are stacked in order of length. ``positions``,
    (b, t), of the tokens in their documents, if several share a row.
    """
    t, ids = tokens.shape[1], tokens + 1  # 0 stands for the positions before the first token
    key, indices = ids, []
    for distance in range(1, longest):
        shift = min(distance, t)
        earlier = F.pad(ids[:, : t - shift], (shift, 0))
        if positions is not None:
            earlier = earlier.masked_fill(positions < distance, 0)
        key = (key * FACTOR + earlier) % PRIME
        indices.append(key % rows + (distance - 1) * rows)
    return torch.stack(indices, dim=2)
