"""Attention as two batched matrix products around a softmax: on a CPU a short context trains fastest so.

`explicit_attention` is what torch differentiates operation by operation. `attention_at_once` is the same and
the rotation before it as one operation, with a backward pass of its own: copies, and starting many small
operations, are much of a small model's step.

Shapes: b sequences, t tokens, h query heads, g key/value heads, n = h / g, k head width.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor

from minilm.model.dropout import dropout as dropped
from minilm.model.first_derivative import refuse_second

Rotation = tuple[Tensor, Tensor]


def explicit_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    dropout: float,
    visible: Tensor | None = None,
) -> Tensor:
    """(b, h, t, k) three times -> (b, h, t, k).

    ``visible``, (b, 1, t, t), is true where a query sees a key; None: all of the window before it.
    """
    b, h, t, k = query.shape
    if visible is None:
        hidden = hidden_positions(t, window, query.device)
    else:
        hidden = repeat(~visible, "b 1 q n -> (b h) q n", h=h)
    query, key, value = (rearrange(x, "b h t k -> (b h) t k") for x in (query, key, value))
    # baddbmm scales the product and adds the mask in the same pass.
    scores = torch.baddbmm(_added(hidden, query.dtype), query, key.transpose(1, 2), alpha=k**-0.5)
    weights = dropped(scores.softmax(dim=-1), dropout)
    return rearrange(torch.bmm(weights, value), "(b h) t k -> b h t k", b=b, h=h)


def attention_at_once(
    query: Tensor, key: Tensor, value: Tensor, rotation: Rotation | None, *, window: int
) -> Tensor:
    """Heads (b, h, t, k) and twice (b, g, t, k), not rotated yet -> (b, t, h k). On a CPU."""
    cosine, sine = (None, None) if rotation is None else rotation
    attended: Tensor = _Attention.apply(query, key, value, cosine, sine, window)  # type: ignore[no-untyped-call]
    return attended


class _Attention(torch.autograd.Function):
    """The queries of a group, that share their key and value, are rows of one product."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cosine: Tensor | None,
        sine: Tensor | None,
        window: int,
    ) -> Tensor:
        b, h, t, k = query.shape
        g = key.shape[1]
        table = _table(cosine, sine, query.dtype)
        query = _rotated(query, table).view(b * g, h // g * t, k)
        key = _rotated(key, table).view(b * g, t, k)
        value = _rotated(value, None).view(b * g, t, k)
        mask = _mask(t, window, h // g, query.dtype)
        scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=k**-0.5)
        weights = scores.softmax(dim=-1)  # (b g) (n t) t
        ctx.save_for_backward(query, key, value, weights, cosine, sine)
        ctx.sizes = b, h, g, t, k
        return rearrange(torch.bmm(weights, value).view(b, h, t, k), "b h t k -> b t (h k)")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second("explicit attention")
        query, key, value, weights, cosine, sine = ctx.saved_tensors
        b, h, g, t, k = ctx.sizes
        gradient = rearrange(gradient, "b t (h k) -> b h t k", h=h).reshape(b * g, h // g * t, k)
        of_value = torch.bmm(weights.transpose(1, 2), gradient)
        of_weights = torch.bmm(gradient, value.transpose(1, 2))
        of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        del of_weights
        zero = of_scores.new_zeros(())
        of_query = torch.baddbmm(zero, of_scores, key, beta=0, alpha=k**-0.5)
        of_key = torch.baddbmm(zero, of_scores.transpose(1, 2), query, beta=0, alpha=k**-0.5)
        # The transpose of a rotation is the one back.
        table = _table(cosine, sine, query.dtype)
        back = None if table is None else (table[0], -table[1])
        return (
            *(
                # In the order of memory in which the projections' gradient reads it.
                _rotated(part.view(b, heads, t, k), turn, by_token=True)
                for part, heads, turn in (
                    (of_query, h, back),
                    (of_key, g, back),
                    (of_value, g, None),
                )
            ),
            *(None, None, None),
        )


def _table(cosine: Tensor | None, sine: Tensor | None, dtype: torch.dtype) -> Rotation | None:
    """(t, rotary_dim) each: what the elements, and those that they are paired with, are multiplied by."""
    if cosine is None or sine is None:
        return None
    return torch.cat((cosine, cosine), -1).to(dtype), torch.cat((-sine, sine), -1).to(dtype)


def _rotated(x: Tensor, table: Rotation | None, *, by_token: bool = False) -> Tensor:
    """A copy of (b, h, t, k), rotated by ``table`` if any, in memory by head or ``by_token``."""
    b, h, t, k = x.shape
    result = x.new_empty(b, t, h, k).transpose(1, 2) if by_token else x.new_empty(x.shape)
    if table is None:
        return result.copy_(x)
    cosine, sine = table
    rotary_dim = cosine.shape[-1]
    first, second = x[..., :rotary_dim].chunk(2, dim=-1)
    torch.mul(x[..., :rotary_dim], cosine, out=result[..., :rotary_dim])
    result[..., :rotary_dim].addcmul_(torch.cat((second, first), dim=-1), sine)
    result[..., rotary_dim:].copy_(x[..., rotary_dim:])
    return result


@lru_cache(maxsize=4)
def _mask(t: int, window: int, group: int, dtype: torch.dtype) -> Tensor:
    """(group t, t), of a CPU: zero where a row's token sees a column's, else minus infinity."""
    return _added(hidden_positions(t, window, torch.device("cpu")), dtype).repeat(group, 1)


def _added(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(hidden.shape, device=hidden.device, dtype=dtype)
    return mask.masked_fill(hidden, float("-inf"))


def hidden_positions(t: int, window: int, device: torch.device) -> Tensor:
    """(t, t), true where a row's token does not see a column's: later ones, and those out of the window."""
    hidden = torch.ones(t, t, device=device, dtype=torch.bool).triu(1)
    if 0 < window < t:
        hidden |= torch.ones(t, t, device=device, dtype=torch.bool).tril(-window)
    return hidden
