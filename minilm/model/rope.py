"""Rotary position embedding, rotate-half form (Su et al. 2021, arXiv:2104.09864).

Element i of the part of a head that turns is paired with the one half that part later, as Llama and GPT-NeoX
checkpoints expect.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from minilm.config import ModelConfig


def rotation(length: int, config: ModelConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (length, rotary_dim / 2), of the angles position * frequency."""
    positions = torch.arange(length, device=device, dtype=torch.float32)
    angles = torch.outer(positions, frequencies(config, device))
    return angles.cos(), angles.sin()


def frequencies(config: ModelConfig, device: torch.device) -> Tensor:
    """Radians a token of each pair, (rotary_dim / 2): theta^(-2i/rotary_dim), scaled as the config says.

    The scaling of Llama 3.1 is that of huggingface/transformers, `modeling_rope_utils.py`.
    """
    pairs = torch.arange(0, config.rotary_dim, 2, device=device, dtype=torch.float32)
    plain = config.rope_theta ** -(pairs / config.rotary_dim)
    if config.rope_scaling == "none":
        return plain
    slow = plain / config.rope_factor
    if config.rope_scaling == "linear":
        return slow
    turns = config.rope_original_context * plain / (2 * math.pi)
    low, high = config.rope_low_factor, config.rope_high_factor
    share = ((turns - low) / (high - low)).clamp(0, 1)
    return share * plain + (1 - share) * slow


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair of (b, h, t, k) by its position's angle; the dtype of ``x`` is kept.

    What is beyond the pairs that have an angle stays as it is.
    """
    turning = 2 * cosine.shape[-1]
    if turning < x.shape[-1]:
        return torch.cat((rotate(x[..., :turning], cosine, sine), x[..., turning:]), dim=-1)
    first, second = x.chunk(2, dim=-1)
    cosine, sine = cosine.to(x.dtype), sine.to(x.dtype)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
