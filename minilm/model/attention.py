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
from torch.nn.modules.module import _has_any_global_hook

from minilm.config import ModelConfig
from minilm.model.explicit_attention import (
    Rotation,
    attention_at_once,
    explicit_attention,
    hidden_positions,
)
from minilm.model.kv_cache import BlockKVCache, Positions
from minilm.model.layers import Linear, is_watched, make_norm
from minilm.model.rope import rotate


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
        if self._is_at_once(x, positions):
            heads = self._heads(x, at_once=True)
            return self._projected(attention_at_once(*heads, rotation, window=self.window))
        query, key, value = self._rotated_heads(x, rotation)
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
            dtype, longest = query.dtype, self.longest_explicit
            is_explicit = explicit_is_faster(x.device, x.shape[1], dtype, longest, dropout)
            attend = explicit_attention if is_explicit else fused_attention
            attended = attend(
                query, key, value, window=self.window, dropout=dropout, visible=visible
            )
        else:
            attended = F.scaled_dot_product_attention(query, key, value, visible, dropout_p=dropout)
        return self._projected(rearrange(attended, "b h t k -> b t (h k)"))

    def weights(
        self, x: Tensor, rotation: Rotation | None, visible: Tensor | None = None
    ) -> Tensor:
        """(b, t, d) -> (b, h, t, t): how much each token, a row, attends to each other."""
        query, key, _ = self._rotated_heads(x, rotation)
        key = repeat(key, "b g t k -> b (g n) t k", n=self.num_heads // self.num_kv_heads)
        t, k = query.shape[2:]
        hidden = hidden_positions(t, self.window, x.device) if visible is None else ~visible
        scores = query @ key.transpose(2, 3) * k**-0.5  # b h t t
        weights: Tensor = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
        return weights

    def _projected(self, attended: Tensor) -> Tensor:
        output: Tensor = self.output(attended)
        return output

    def _is_at_once(self, x: Tensor, positions: Positions | None) -> bool:
        """Whether explicit attention may be one operation: trained as a whole, each row one document."""
        if x.device.type != "cpu" or positions is not None or torch.compiler.is_compiling():
            return False
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        return (
            self.query_norm is None
            and not (self.training and self.dropout)
            and explicit_is_faster(x.device, x.shape[1], dtype, self.longest_explicit)
            and all(_is_plain(layer) for layer in (self.query, self.key, self.value))
        )

    def _rotated_heads(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """(b, t, d) -> query (b, h, t, k), key and value (b, g, t, k), normed and rotated."""
        query, key, value = self._heads(x)
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        return query, key, value

    def _heads(self, x: Tensor, *, at_once: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """The same, not rotated."""
        projected = self._projections(x, at_once)
        query = rearrange(projected[0], "b t (h k) -> b h t k", h=self.num_heads)
        key = rearrange(projected[1], "b t (g k) -> b g t k", g=self.num_kv_heads)
        value = rearrange(projected[2], "b t (g k) -> b g t k", g=self.num_kv_heads)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        return query, key, value

    def _projections(self, x: Tensor, at_once: bool) -> Sequence[Tensor]:
        """Query, key and value: of plain matrices one product, compiled or in 16 bits; else three.

        Autocast casts the input for each product. In float32 the joined matrix would be one more to keep.
        """
        layers = self.query, self.key, self.value
        is_joined = at_once and torch.is_autocast_enabled("cpu")
        if torch.compiler.is_compiling():
            is_joined = all(type(layer) is Linear and not is_watched(layer) for layer in layers)
        if not is_joined:
            return [layer(x) for layer in layers]
        weights: list[Tensor] = [layer.weight for layer in layers]
        biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        together = F.linear(x, torch.cat(weights), torch.cat(biases) if biases else None)
        widths = [layer.out_features for layer in layers]
        parts: Sequence[Tensor] = together.split(widths, dim=-1)  # type: ignore[no-untyped-call]
        return parts


def _is_plain(layer: nn.Module) -> bool:
    """Whether its matrix may be used without it: trained, whole in this process, and watched by nothing."""
    return (
        type(layer) is Linear
        and type(layer.weight) is nn.Parameter
        and layer.weight.requires_grad
        and not is_watched(layer)
        and not _has_any_global_hook()  # type: ignore[no-untyped-call]
    )


# Those of CUDA that `fused_attention` may go to, beside products written out.
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def kernel_first(name: str) -> AbstractContextManager[None]:
    """Attention, within the block, by that one of `KERNELS`, and by another where it cannot."""
    others = [each for each in (*KERNELS.values(), SDPBackend.MATH) if each != KERNELS[name]]
    return sdpa_kernel([KERNELS[name], *others], set_priority=True)


def without_plans(device: torch.device) -> AbstractContextManager[None]:
    """Attention, within the block, by kernels that take any number of keys as it comes.

    cuDNN's builds a plan for each number that is new, which took 50 ms a token on an H100.
    """
    if device.type != "cuda":
        return nullcontext()
    kernels = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
    return sdpa_kernel(list(kernels))


def explicit_is_faster(
    device: torch.device,
    tokens: int,
    dtype: torch.dtype,
    longest: int | None = None,
    dropout: float = 0.0,
) -> bool:
    """Whether `explicit_attention` is faster for sequences of ``tokens``: up to ``longest``, None: by rule.

    Only in training on a CPU; elsewhere, and without gradients, the fused kernel wins or ties. That of a CPU
    has no dropout: torch then does the same as here, with masks that it draws slowly.
    """
    if device.type != "cpu" or not torch.is_grad_enabled():
        return False
    return dropout > 0 or tokens <= (longest_explicit(dtype) if longest is None else longest)


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
