"""Attention of one new token of each text, in the dtype that is measured to be fastest here.

Shapes: b sequences, n keys, h query heads, g key/value heads, k head width.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from minilm.generation.tuning import choose
from minilm.model.kv_cache import KVCache

IN_FLOAT32 = "float32"
KEYS = 128  # that are timed, of caches that have so many


class TokenAttention:
    """Queries (b, g, h/g, k), keys and values (b, g, n, k), a mask or None -> (b, g, h/g, k).

    In half precision on a CPU it is computed in float32, or as it is: torch's kernel for it is several times
    as fast as with the conversions on some processors, and as slow on others (docs/performance.md).
    """

    def __init__(self, num_heads: int, dtype: torch.dtype, device: torch.device) -> None:
        self._num_heads, self._dtype = num_heads, dtype
        self._own = str(dtype).removeprefix("torch.")
        self._is_half_on_cpu = device.type == "cpu" and dtype != torch.float32
        self.chosen: dict[int, str] = {}  # by number of sequences

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        if self._is_half_on_cpu and self.chosen.get(len(query), IN_FLOAT32) == IN_FLOAT32:
            query, key, value = query.float(), key.float(), value.float()
            return F.scaled_dot_product_attention(query, key, value, mask).to(self._dtype)
        return F.scaled_dot_product_attention(query, key, value, mask)

    def choose(self, cache: KVCache) -> None:
        """In which dtype it is computed for as many texts, by the time that it takes over this cache."""
        sequences = len(cache.lengths)
        if not self._is_half_on_cpu or sequences in self.chosen:
            return
        g, slots, k = cache.blocks[0].key.shape[1:]
        keys, h = min(KEYS, slots), self._num_heads
        query = torch.ones(sequences, g, h // g, k, dtype=self._dtype)

        layers = [(block.key[:, :, :keys], block.value[:, :, :keys]) for block in cache.blocks]
        for key, value in layers:  # what was never written is in no memory yet
            key.zero_()
            value.zero_()

        def run(name: str) -> None:
            self.chosen[sequences] = name
            for key, value in layers:
                self(query, key, value, None)

        question = (
            f"attention of a token of {sequences} texts, {len(layers)} layers of {h} and {g} heads of {k}, "
            f"{keys} keys, {self._dtype}"
        )
        ways = [(name, partial(run, name)) for name in (IN_FLOAT32, self._own)]
        self.chosen[sequences] = choose(question, ways)
