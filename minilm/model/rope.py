"""Rotary position embedding, rotate-half form (Su et al. 2021, arXiv:2104.09864).

Of the first rotary_dim elements of a head (all of them, or fewer with partial RoPE), element i is paired with
element i + rotary_dim / 2, as Llama and GPT-NeoX checkpoints expect.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from minilm.config import ModelConfig


def rotation(length: int, config: ModelConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (length, rotary_dim / 2), of the angles position * frequency."""
    table = _table(frequencies(config, device), length)
    return table[0], table[1]


@torch.library.custom_op("minilm::rotation_table", mutates_args=())
def _compiled_table(frequencies: Tensor, length: int) -> Tensor:
    return _computed_table(frequencies, length)


@_compiled_table.register_fake
def _(frequencies: Tensor, length: int) -> Tensor:
    return frequencies.new_empty(2, length, frequencies.shape[0])


def _table(frequencies: Tensor, length: int) -> Tensor:
    """Cosines and sines, (2, length, rotary_dim / 2).

    An operator of its own where it is compiled: the compiler would compute them again for every head of every
    layer, a quarter of a step of 10.7M parameters on an H100.
    """
    compute = _compiled_table if torch.compiler.is_compiling() else _computed_table
    return compute(frequencies, length)


def _computed_table(frequencies: Tensor, length: int) -> Tensor:
    positions = torch.arange(length, device=frequencies.device, dtype=torch.float32)
    angles = torch.outer(positions, frequencies)
    return torch.stack((angles.cos(), angles.sin()))


def frequencies(config: ModelConfig, device: torch.device) -> Tensor:
    """Radians per token of each pair, (rotary_dim / 2): theta^(-2i/rotary_dim), scaled as the config says.

    The scaling of Llama 3.1 is that of huggingface/transformers, `modeling_rope_utils.py`.
    """
    pairs = torch.arange(0, config.rotary_dim, 2, device=device, dtype=torch.float32)
    unscaled = config.rope_theta ** -(pairs / config.rotary_dim)
    if config.rope_scaling == "none":
        return unscaled
    scaled = unscaled / config.rope_factor
    if config.rope_scaling == "linear":
        return scaled
    periods = config.rope_original_context * unscaled / (2 * math.pi)  # in the original context
    low, high = config.rope_low_factor, config.rope_high_factor
    smooth = ((periods - low) / (high - low)).clamp(0, 1)
    return smooth * unscaled + (1 - smooth) * scaled


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate each pair of (b, h, t, k) by its position's angle, in the dtype of ``x``.

    With partial RoPE, elements from 2 * cosine.shape[-1] on are not rotated.
    """
    rotary_dim = 2 * cosine.shape[-1]
    if rotary_dim < x.shape[-1]:
        rotated = rotate(x[..., :rotary_dim], cosine, sine)
        return torch.cat((rotated, x[..., rotary_dim:]), dim=-1)
    first, second = x.chunk(2, dim=-1)
    cosine, sine = cosine.to(x.dtype), sine.to(x.dtype)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
