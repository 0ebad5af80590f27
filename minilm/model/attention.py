"""Causal multi-head attention with separate query, key, value and output projections.

Shapes: b sequences, t tokens, h query heads, g key/value heads, k head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from minilm.config import ModelConfig
from minilm.model.dropout import dropout as dropped
from minilm.model.kv_cache import BlockKVCache, Positions
from minilm.model.layers import Linear, make_norm
from minilm.model.rope import rotate

Rotation = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """(b, t, d) -> (b, t, d). Grouped-query when g < h (Ainslie et al. 2023, arXiv:2305.13245).

    With a cache the t tokens also see those before them: n keys in all.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, k = config.d_model, config.head_dim
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.window = config.sliding_window
        self.dropout = config.dropout
        # Up to so many tokens it is explicit where that may be; None: by `longest_explicit`.
        self.longest_explicit: int | None = None
        self.query = Linear(d, config.num_heads * k, bias=config.qkv_bias)
        self.key = Linear(d, config.num_kv_heads * k, bias=config.qkv_bias)
        self.value = Linear(d, config.num_kv_heads * k, bias=config.qkv_bias)
        self.query_norm = make_norm(k, config) if config.qk_norm else None
        self.key_norm = make_norm(k, config) if config.qk_norm else None
        self.output = Linear(config.num_heads * k, d, bias=config.attention_output_bias)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None,
        cache: BlockKVCache | None = None,
        positions: Positions | None = None,
    ) -> Tensor:
        query, key, value = self._heads(x, rotation)
        if cache is not None and positions is not None:
            assert positions.window == self.window, "the cache is for another sliding window"
            key, value = cache.update(key, value, positions)  # b g t k -> b g n k
        if self.num_kv_heads < self.num_heads:
            group = self.num_heads // self.num_kv_heads
            key = repeat(key, "b g t k -> b (g n) t k", n=group)
            value = repeat(value, "b g t k -> b (g n) t k", n=group)
        dropout = self.dropout if self.training else 0.0
        visible = None if positions is None or positions.first else positions.mask
        if cache is None or positions is None or positions.first:
            is_explicit = explicit_is_faster(query, self.longest_explicit, dropout)
            attend = explicit_attention if is_explicit else fused_attention
            attended = attend(
                query, key, value, window=self.window, dropout=dropout, visible=visible
            )
        else:
            attended = F.scaled_dot_product_attention(query, key, value, visible, dropout_p=dropout)
        output: Tensor = self.output(rearrange(attended, "b h t k -> b t (h k)"))
        return output

    def weights(
        self, x: Tensor, rotation: Rotation | None, visible: Tensor | None = None
    ) -> Tensor:
        """(b, t, d) -> (b, h, t, t): how much each token, a row, attends to each other."""
        query, key, _ = self._heads(x, rotation)
        key = repeat(key, "b g t k -> b (g n) t k", n=self.num_heads // self.num_kv_heads)
        t, k = query.shape[2:]
        hidden = hidden_positions(t, self.window, x.device) if visible is None else ~visible
        scores = query @ key.transpose(2, 3) * k**-0.5  # b h t t
        weights: Tensor = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
        return weights

    def _heads(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """(b, t, d) -> query (b, h, t, k), key and value (b, g, t, k), normed and rotated."""
        projected = self._projections(x)
        query = rearrange(projected[0], "b t (h k) -> b h t k", h=self.num_heads)
        key = rearrange(projected[1], "b t (g k) -> b g t k", g=self.num_kv_heads)
        value = rearrange(projected[2], "b t (g k) -> b g t k", g=self.num_kv_heads)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        return query, key, value

    def _projections(self, x: Tensor) -> Sequence[Tensor]:
        """Query, key and value: compiled, one product of three plain matrices, else three."""
        layers = self.query, self.key, self.value
        if not torch.compiler.is_compiling() or any(type(layer) is not Linear for layer in layers):
            return [layer(x) for layer in layers]
        weights: list[Tensor] = [layer.weight for layer in layers]
        biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        together = F.linear(x, torch.cat(weights), torch.cat(biases) if biases else None)
        widths = [layer.out_features for layer in layers]
        parts: Sequence[Tensor] = together.split(widths, dim=-1)  # type: ignore[no-untyped-call]
        return parts


def without_plans(device: torch.device) -> AbstractContextManager[None]:
    """Attention, within the block, by kernels that take any number of keys as it comes.

    cuDNN's builds a plan for each number that is new, which took 50 ms a token on an H100.
    """
    if device.type != "cuda":
        return nullcontext()
    kernels = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
    return sdpa_kernel(list(kernels))


def explicit_is_faster(query: Tensor, longest: int | None = None, dropout: float = 0.0) -> bool:
    """Whether `explicit_attention` is faster for (b, h, t, k): up to ``longest``, None: by rule.

    Only in training on a CPU; elsewhere, and without gradients, the fused kernel wins or ties. That of a CPU
    has no dropout: torch then does the same as here, with masks that it draws slowly.
    """
    if query.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    if dropout:
        return True
    return query.shape[2] <= (longest_explicit(query.dtype) if longest is None else longest)


def longest_explicit(dtype: torch.dtype) -> int:
    """Up to how many tokens explicit attention is faster in training, by the table in docs/performance.md.

    On a CPU the backward pass of torch's fused kernel costs several times its forward pass at short
    lengths, in bfloat16 up to longer ones.
    """
    return 128 if dtype == torch.float32 else 512


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    dropout: float,
    visible: Tensor | None = None,
) -> Tensor:
    """(b, h, t, k) three times -> (b, h, t, k) through torch's scaled_dot_product_attention.

    ``visible``, (b, 1, t, t), is true where a query sees a key; None: all of the window before it.
    """
    t = query.shape[2]
    if visible is None and 0 < window < t:
        visible = ~hidden_positions(t, window, query.device)
    return F.scaled_dot_product_attention(
        query, key, value, visible, dropout_p=dropout, is_causal=visible is None
    )


def explicit_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    dropout: float,
    visible: Tensor | None = None,
) -> Tensor:
    """The same, as two batched matrix products around a softmax."""
    b, h, t, k = query.shape
    if visible is None:
        hidden = hidden_positions(t, window, query.device)
    else:
        hidden = repeat(~visible, "b 1 q n -> (b h) q n", h=h)
    mask = torch.zeros(hidden.shape, device=query.device, dtype=query.dtype)
    mask = mask.masked_fill(hidden, float("-inf"))
    query, key, value = (rearrange(x, "b h t k -> (b h) t k") for x in (query, key, value))
    # baddbmm scales the product and adds the mask in the same pass.
    scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=k**-0.5)
    weights = dropped(scores.softmax(dim=-1), dropout)
    return rearrange(torch.bmm(weights, value), "(b h) t k -> b h t k", b=b, h=h)


def hidden_positions(t: int, window: int, device: torch.device) -> Tensor:
    """(t, t), true where a row's token does not see a column's: later ones, and those out of the window."""
    hidden = torch.ones(t, t, device=device, dtype=torch.bool).triu(1)
    if 0 < window < t:
        hidden |= torch.ones(t, t, device=device, dtype=torch.bool).tril(-window)
    return hidden
