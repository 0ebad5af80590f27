"""Rotary position embedding, rotate-half form (Su et al. 2021, arXiv:2104.09864).

Element i of a head is paired with element i + k/2, as Llama and GPT-NeoX checkpoints expect.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotation(
    length: int, head_dim: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (length, head_dim / 2), of the angles position * theta^(-2i/head_dim)."""
    exponents = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    positions = torch.arange(length, device=device, dtype=torch.float32)
    angles = torch.outer(positions, theta**-exponents)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair of (b, h, t, k) by its position's angle; the dtype of ``x`` is kept."""
    first, second = x.chunk(2, dim=-1)
    cosine, sine = cosine.to(x.dtype), sine.to(x.dtype)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
