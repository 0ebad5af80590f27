"""Attention of one new token of each text, in the dtype that is measured to be fastest here.

Shapes: b sequences, n keys, h query heads, g key/value heads, k head width.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from minilm.config import ModelConfig
from minilm.generation.tuning import choose

IN_FLOAT32 = "float32"
KEYS = 128  # of the texts that are timed


class TokenAttention:
    """Queries (b, g, h/g, k), keys and values (b, g, n, k), a mask or None -> (b, g, h/g, k).

    In half precision on a CPU it is computed in float32, or as it is: torch's kernel for it is several times
    as fast as with the conversions on some processors, and as slow on others (docs/performance.md).
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        self._config, self._dtype = config, dtype
        self._own = str(dtype).removeprefix("torch.")
        self._is_half_on_cpu = device.type == "cpu" and dtype != torch.float32
        self.chosen: dict[int, str] = {}  # by number of sequences

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        if self._is_half_on_cpu and self.chosen.get(len(query), IN_FLOAT32) == IN_FLOAT32:
            query, key, value = query.float(), key.float(), value.float()
        return F.scaled_dot_product_attention(query, key, value, mask).to(self._dtype)

    def choose(self, sequences: int) -> None:
        """In which dtype it is computed for so many, over keys and values of every layer in turn."""
        if not self._is_half_on_cpu or sequences in self.chosen:
            return
        config = self._config
        g, k = config.num_kv_heads, config.head_dim
        keys = min(KEYS, config.context_length)
        query = torch.ones(sequences, g, config.num_heads // g, k, dtype=self._dtype)
        # As a cache gives them: the first of its slots.
        slots = torch.ones(config.num_layers, 2, sequences, g, 2 * keys, k, dtype=self._dtype)
        layers = [(key, value) for key, value in slots[..., :keys, :]]

        def run(name: str) -> None:
            self.chosen[sequences] = name
            for key, value in layers:
                self(query, key, value, None)

        question = (
            f"attention of a token of {sequences} texts, {config.num_layers} layers of {config.num_heads} "
            f"and {g} heads of {k}, {keys} keys, {self._dtype}"
        )
        ways = [(name, partial(run, name)) for name in (IN_FLOAT32, self._own)]
        self.chosen[sequences] = choose(question, ways)
