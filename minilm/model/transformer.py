"""The decoder-only transformer: embedding, pre-norm blocks, final norm, LM head.

Shapes: b sequences, t tokens, d model width, V vocabulary, R rows of an n-gram table. Parameter names
are a file format: they are listed in docs/architecture.md and pinned by a test.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from minilm.config import ModelConfig
from minilm.model.attention import Attention
from minilm.model.chunked_loss import chunked_loss, is_chunked, loss_of_logits
from minilm.model.dropout import Dropout
from minilm.model.explicit_attention import Rotation
from minilm.model.initialization import initialize
from minilm.model.kv_cache import BlockKVCache, KVCache, Positions
from minilm.model.layers import (
    CausalConvolution,
    EmbeddingTable,
    FeedForward,
    LMHead,
    is_watched,
    make_norm,
)
from minilm.model.ngrams import ngram_rows
from minilm.model.packing import packed_positions
from minilm.model.rope import rotation


class Embedding(nn.Module):
    """Token ids (b, t) -> (b, t, d): a row of each token, and of its position and n-grams if configured."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.token = EmbeddingTable(config.vocab_size, config.d_model)
        learned = config.position == "learned"
        self.position = EmbeddingTable(config.context_length, config.d_model) if learned else None
        # The tables of bigrams, trigrams, ... stacked.
        self.longest_ngram, self.ngram_rows = config.ngram, config.ngram_rows
        rows = (config.ngram - 1) * config.ngram_rows
        self.ngram = EmbeddingTable(rows, config.d_model) if rows else None

    def forward(
        self, tokens: Tensor, cache: KVCache | None = None, positions: Positions | None = None
    ) -> Tensor:
        t = tokens.shape[1]
        x: Tensor = self.token(tokens)
        if self.position is not None:
            index = torch.arange(t, device=tokens.device) if positions is None else positions.index
            x = x + self.position(index)
        if self.ngram is not None:
            in_document = None
            if cache is not None:
                tokens = cache.extend_tokens(tokens)
            elif positions is not None:
                in_document = positions.index
            rows = ngram_rows(tokens, self.longest_ngram, self.ngram_rows, in_document)  # b t n
            rows = rows[:, -t:]
            x = x + self.ngram(rows).sum(dim=2)  # b t n d -> b t d
        return x


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)); a convolution, if any, comes first.

    With a parallel residual both read the same x (Wang and Komatsuzaki 2021, GPT-J).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.convolution = CausalConvolution(config) if config.convolution else None
        self.attention_norm = make_norm(config.d_model, config)
        self.attention = Attention(config)
        self.feed_forward_norm = make_norm(config.d_model, config)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)
        self.parallel = config.parallel_residual

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None,
        cache: BlockKVCache | None = None,
        positions: Positions | None = None,
    ) -> Tensor:
        if self.convolution is not None:
            x = self.convolution(x, cache, positions)
        attended = self.attention(self.attention_norm(x), rotation, cache, positions)
        after = x + self.dropout(attended)
        read = x if self.parallel else after
        x = after + self.dropout(self.feed_forward(self.feed_forward_norm(read)))
        return x


class Transformer(nn.Module):
    """Token ids (b, t) -> logits (b, t, V).

    With a cache the t tokens follow those that it holds, and are added to it: the logits are those that a
    pass over the whole sequences gives for them. Call it under `torch.no_grad()`.

    Several documents may share a row: ``document_positions``, (b, t), are those of the tokens in their own
    documents, each of which begins at 0 and sees no other.

    Weights are drawn from ``generator`` (seed 0 without one), so the same seed gives the same bytes.
    Built under ``torch.device("meta")`` it has shapes and no values.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.dropout = Dropout(config.dropout)
        # Each block once, though several layers may run it.
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.final_norm = make_norm(config.d_model, config)
        self.lm_head = LMHead(config.d_model, config.vocab_size)
        if config.tied_embeddings:
            self.lm_head.weight = self.embedding.token.weight
        initialize(self, config, generator or torch.Generator().manual_seed(0))

    def forward(
        self,
        tokens: Tensor,
        cache: KVCache | None = None,
        document_positions: Tensor | None = None,
    ) -> Tensor:
        logits: Tensor = self.lm_head(self.features(tokens, cache, document_positions))
        if cache is not None:
            cache.advance(tokens.shape[1])
        return logits

    def features(
        self,
        tokens: Tensor,
        cache: KVCache | None = None,
        document_positions: Tensor | None = None,
    ) -> Tensor:
        """(b, t) -> (b, t, d): what the head reads. The cache is not advanced."""
        t, config = tokens.shape[1], self.config
        assert t <= config.context_length, (
            f"{t} tokens exceed the context of {config.context_length}"
        )
        positions, angles = None, None
        if cache is not None:
            positions = cache.next_positions(t)
        elif document_positions is not None:
            positions = packed_positions(document_positions, config)
        if positions is not None:
            angles = positions.rotation
        elif config.position == "rope":
            angles = rotation(t, config, tokens.device)
        x = self.dropout(self.embedding(tokens, cache, positions))
        for layer, block in enumerate(self._layers()):
            x = block(x, angles, None if cache is None else cache.blocks[layer], positions)
        normalised: Tensor = self.final_norm(x)
        return normalised

    def _layers(self) -> Iterable[nn.Module]:
        """The block of each layer."""
        if self.config.num_blocks == self.config.num_layers:
            return self.blocks
        return [self.blocks[number] for number in self.config.block_order]


def next_token_loss(
    model: nn.Module, tokens: Tensor, targets: Tensor, document_positions: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy in nats of ``targets`` (b, t); targets of -100 are ignored.

    ``document_positions`` are given where several documents share a row, as `Transformer` takes them.
    """
    if type(model) is Transformer and not is_watched(model) and is_chunked(model.lm_head, tokens):
        features = model.features(tokens, document_positions=document_positions)
        return chunked_loss(model.lm_head, features.flatten(0, 1), targets.flatten())
    if document_positions is None:
        logits = model(tokens)
    else:
        logits = model(tokens, document_positions=document_positions)
    return loss_of_logits(logits.flatten(0, 1), targets.flatten())
