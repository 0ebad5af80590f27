"""What was tried in the model and did not pay: subclasses, for scripts/experiments/ablate.py alone.

Each is the model with one more idea. They have no options, no declaration in the ledger and no place in a
run folder, because the results in docs/ablations.md speak against them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from minilm.config import ModelConfig
from minilm.model.kv_cache import KVCache
from minilm.model.layers import EmbeddingTable
from minilm.model.transformer import Transformer


class SoftCap(Transformer):
    """Logits bent into (-15, 15) by a tangent (Gemma 2, arXiv:2408.00118, section 2)."""

    CAP = 15.0

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        return self.CAP * torch.tanh(super().forward(tokens, cache) / self.CAP)


class _WithTokens(Transformer):
    """Lets the blocks see the embedding, or the tokens, that the network began with."""

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        self.seen["tokens"] = tokens
        return super().forward(tokens, cache)

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        self.seen: dict[str, Tensor] = {}


class EmbeddingShortcut(_WithTokens):
    """Each block's input is a * x + b * embedding, a and b learned (modded-nanogpt's x0 lambdas)."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        start = torch.tensor([1.0, 0.0]).repeat(config.num_layers, 1)
        self.shortcut = nn.Parameter(start)  # layers 2
        self.embedding.register_forward_hook(self._keep)
        for number, block in enumerate(self.blocks):
            block.register_forward_pre_hook(self._mixing(number))

    def _keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self.seen["embedding"] = output

    def _mixing(self, number: int):
        def mix(module: nn.Module, inputs: tuple[Any, ...]):
            x, *others = inputs
            old, new = self.shortcut[number]
            return old * x + new * self.seen["embedding"], *others

        return mix


class ValueShortcut(_WithTokens):
    """Each layer's values get a table's row for the token too (Zhou et al. 2024, arXiv:2410.17897)."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        width = config.num_kv_heads * config.head_dim
        self.value_tables = nn.ModuleList(
            EmbeddingTable(config.vocab_size, width) for _ in range(config.num_layers)
        )
        for table, block in zip(self.value_tables, self.blocks, strict=True):
            nn.init.zeros_(table.weight)
            block.attention.value.register_forward_hook(self._adding(table))

    def _adding(self, table: nn.Module):
        def add(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            return output + table(self.seen["tokens"])

        return add
