"""The pass of one token on CUDA as a graph that is replayed, over a cache of fixed shape."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minilm.model.cuda_graph import capture, run_on
from minilm.model.kv_cache import KVCache, Positions

Forward = Callable[[Tensor, KVCache, Positions], Tensor]


class TokenGraph:
    """Tokens (b, 1) after those of a cache, always the same, -> logits (b, V).

    Positions are computed in the graph, from the lengths of the texts. The first token is computed without
    one, the second is captured; what cannot be captured goes on as the first, with a note.
    """

    def __init__(self, forward: Forward, sequences: int, device: torch.device) -> None:
        self._forward = forward
        self._tokens = torch.zeros(sequences, 1, dtype=torch.int64, device=device)
        self._lengths = torch.zeros(sequences, dtype=torch.int64, device=device)
        self._logits = torch.empty(0)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._passes = 0

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        cache.check_room(1)
        self._tokens.copy_(tokens)
        self._lengths.copy_(torch.tensor(cache.lengths))

        def compute() -> None:
            positions = cache.next_positions(1, self._lengths)
            self._logits = self._forward(self._tokens, cache, positions)

        if self._passes == 1:
            self._graph = capture(compute, self._stream)
        self._passes += 1
        if self._graph is not None:
            self._graph.replay()
        else:
            run_on(self._stream, compute)
        return self._logits.clone()  # the next pass writes there
