"""What each frequency of RoPE is divided by, a tensor of GGUF files, from a configuration and back.

The file has no other trace of Llama 3's scaling: what was configured follows from the factors. Source:
ggml-org/llama.cpp `convert_hf_to_gguf.py`, which writes the formula of huggingface/transformers,
`modeling_rope_utils.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from minilm.config import ModelConfig
from minilm.errors import ConfigError
from minilm.formats.tensor_io import Array

ROPE_FACTORS = "rope_freqs.weight"
# Of Llama 3.1, 3.2 and 3.3: rotations in the original context, and its length.
_PUBLISHED = (1.0, 4.0, 8192)
_TOLERANCE = 1e-4  # relative


def rope_factors(config: ModelConfig) -> Array:
    """(rotary_dim / 2,): the factors of ``config``."""
    return _frequencies(replace(config, rope_scaling="none")) / _frequencies(config)


def rope_scaling(config: ModelConfig, factors: Array) -> dict[str, Any]:
    """The fields of a model whose factors these are, ``config`` being the model without them.

    Raises ConfigError where no scaling that minilm has gives them.
    """
    factors = factors.astype(np.float64)
    is_whole = factors.shape == (config.rotary_dim // 2,)
    if is_whole and (factors > 0).all() and np.isfinite(factors).all():
        if np.all(factors == 1):
            return {}
        factor = float(f"{factors.max():.6g}")
        for low, high, original in _candidates(config, factors, factor):
            fields: dict[str, Any] = {
                "rope_scaling": "llama3",
                "rope_factor": factor,
                "rope_low_factor": low,
                "rope_high_factor": high,
                "rope_original_context": original,
            }
            if np.allclose(rope_factors(replace(config, **fields)), factors, rtol=_TOLERANCE):
                return fields
    raise ConfigError(ROPE_FACTORS, "factors of another scaling", "those of Llama 3's")


def _candidates(
    config: ModelConfig, factors: Array, factor: float
) -> Iterator[tuple[float, float, int]]:
    """(low factor, high factor, original context), which only matter up to a common multiple.

    Between the two bounds, a frequency's share of no scaling is linear in it: two of them give the line.
    """
    yield _PUBLISHED
    if factor <= 1:
        return
    low, high, _ = _PUBLISHED
    rotations = _frequencies(config) / (2 * math.pi)  # a token
    shares = (1 / factors - 1 / factor) / (1 - 1 / factor)
    between = (shares > _TOLERANCE) & (shares < 1 - _TOLERANCE)
    if between.sum() >= 2:
        slope, offset = np.polyfit(rotations[between], shares[between], 1)
        high = low - low / offset if offset < 0 else high
        original = slope * (high - low)
        high = float(f"{high:.4g}")
    elif between.any():
        original = (low + shares[between][0] * (high - low)) / rotations[between][0]
    else:
        return
    if low < high and 1 <= original < 2**31:
        yield low, high, round(original)


def _frequencies(config: ModelConfig) -> Array:
    import torch

    from minilm.model.rope import frequencies

    values: Array = frequencies(config, torch.device("cpu")).numpy()
    return values
