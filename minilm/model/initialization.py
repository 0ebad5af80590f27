"""Initial weights, from an explicit generator.

normal: Radford et al. 2019 (GPT-2), std init_std. xavier: Glorot and Bengio 2010, variance
2 / (fan_in + fan_out). kaiming: He et al. 2015, variance 2 / fan_in. Token and position embeddings are
normal with embedding_std under each. The two projections that write to the residual stream are divided
by sqrt(2 * num_layers) (GPT-2), or start at zero together with an untied head. N-gram embeddings and
convolutions start at zero, as if they were absent.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from minilm.config import ModelConfig


def initialize(model: nn.Module, config: ModelConfig, generator: torch.Generator) -> None:
    """Fill every parameter in place; on the meta device there is nothing to fill."""
    zero = config.output_initialization == "zero"
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            return
        with torch.no_grad():
            writes_residual = name.endswith(("attention.output.weight", "feed_forward.down.weight"))
            added_input = name == "embedding.ngram.weight" or name.endswith("convolution.weight")
            if parameter.ndim == 1:  # a bias, or a norm's gain
                parameter.fill_(0.0 if name.endswith(".bias") else 1.0)
            elif added_input or (zero and (writes_residual or name == "lm_head.weight")):
                parameter.zero_()
            else:
                std = config.embedding_std
                if not name.startswith("embedding."):
                    std = _matrix_std(parameter, config)
                if writes_residual:
                    std /= math.sqrt(2 * config.num_layers)
                # On the CPU: the same bytes on every device.
                values = torch.empty(parameter.shape).normal_(0.0, std, generator=generator)
                parameter.copy_(values)


def _matrix_std(matrix: torch.Tensor, config: ModelConfig) -> float:
    fan_out, fan_in = matrix.shape
    if config.initialization == "xavier":
        return math.sqrt(2 / (fan_in + fan_out))
    if config.initialization == "kaiming":
        return math.sqrt(2 / fan_in)
    return config.init_std
