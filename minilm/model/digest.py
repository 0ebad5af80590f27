"""SHA-256 of the parameters of a model, by which it is known again."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor, nn


def parameters_sha256(model: nn.Module) -> str:
    """Of all parameters, each with its name."""
    return hashlib.sha256(json.dumps(tensor_sha256(model), sort_keys=True).encode()).hexdigest()


def tensor_sha256(model: nn.Module) -> dict[str, str]:
    """Of each parameter's numbers as they are in memory, by name."""
    return {
        name: hashlib.sha256(_bytes(parameter).numpy().data).hexdigest()
        for name, parameter in model.named_parameters()
    }


def _bytes(tensor: Tensor) -> Tensor:
    """Those of any dtype: numpy has no bfloat16."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
