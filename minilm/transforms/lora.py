"""LoRA (Hu et al. 2021, arXiv:2106.09685): a frozen linear map plus a trained one of low rank.

`apply` wraps modules of a model, `merge` folds the adapters into their weights, `remove` takes them off.

Shapes: b sequences, t tokens, i inputs, o outputs, r rank.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minilm.architectures.adapter_map import HEAD, adapted_shapes
from minilm.config.lora import LoraConfig
from minilm.errors import InputError
from minilm.ledger.layout_changes import FACTORS
from minilm.model.layers import Linear
from minilm.model.transformer import Transformer
from minilm.transforms.quantize import QuantizedLinear, dequantized_layer

# A parameter of the base is named as without adapters, but for this.
BASE = "base"


class LoRALinear(nn.Module):
    """(..., i) -> (..., o): base(x) + scale * B A x.

    ``base`` is any module with in_features and out_features, a quantized one too.
    A and B are float32 whatever the base is in: half precision overflows in training. B begins as zeros, so
    that the first output is the base's.
    """

    def __init__(self, base: nn.Module, lora: LoraConfig, generator: torch.Generator) -> None:
        super().__init__()
        linear: Any = base
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.base = base.requires_grad_(False)
        self.scale, self.rank = lora.scale, lora.rank
        self.dropout = nn.Dropout(lora.dropout)
        device = next(itertools.chain(base.parameters(), base.buffers())).device
        with device:
            self.lora_A = Linear(self.in_features, lora.rank, bias=False, dtype=torch.float32)
            self.lora_B = Linear(lora.rank, self.out_features, bias=False, dtype=torch.float32)
        if device.type != "meta":
            bound = self.in_features**-0.5  # as torch's Linear begins
            a = torch.rand(self.lora_A.weight.shape, generator=generator) * 2 - 1
            with torch.no_grad():
                self.lora_A.weight.copy_(a * bound)
                self.lora_B.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.lora_A.weight.dtype)
        low: Tensor = self.lora_A(self.dropout(x)) * self.scale  # b t r
        return y + F.linear(low, self.lora_B.weight).to(y.dtype)

    @torch.no_grad()
    def merged(self, *, keep_zeros: bool = False) -> nn.Linear:
        """The base with W + scale * B A as its weight, rounded to the base's dtype once.

        In float32 if W is quantized. ``keep_zeros``: what is zero in W stays zero.
        """
        base = self.base
        if isinstance(base, QuantizedLinear):  # in few bits, rounding would undo the update
            base = dequantized_layer(base)
        if not isinstance(base, nn.Linear):
            raise InputError("merge", f"an adapter of a {type(base).__name__}", "one of matrices")
        update = self.scale * self.lora_B.weight.float() @ self.lora_A.weight.float()
        if keep_zeros:
            update = update.masked_fill(base.weight == 0, 0.0)
        weight = (base.weight.float() + update).to(base.weight.dtype)
        base.weight = nn.Parameter(weight, requires_grad=False)  # a tied table keeps its own
        return base


def apply(
    model: Transformer, lora: LoraConfig, generator: torch.Generator | None = None
) -> Transformer:
    """Freeze ``model`` and put adapters on the matrices of ``lora.targets``, in place; return it.

    Raises ConfigError for targets and a rank that do not fit the model, InputError where it has adapters.
    """
    if any(True for _ in adapters(model)):
        raise InputError("model", "a model with adapters", "one without", "merge them first")
    generator = generator or torch.Generator().manual_seed(0)
    names = adapted_shapes(model.config, lora)
    model.requires_grad_(False)
    for name in names:
        _replace(model, name, LoRALinear(model.get_submodule(name), lora, generator))
    return model


def merge(model: Transformer, *, keep_zeros: bool = False) -> Transformer:
    """Fold every adapter into the weight of its base, in place. A tied head becomes a tensor of its own.

    With ``keep_zeros`` a pruned base stays pruned; then the result is not exactly the adapter.
    """
    for name, module in list(adapters(model)):
        if name == HEAD and model.config.tied_embeddings:
            model.config = replace(model.config, tied_embeddings=False)
        _replace(model, name, module.merged(keep_zeros=keep_zeros))
    return model


def remove(model: Transformer) -> Transformer:
    """Take every adapter off, in place: the base as it was."""
    for name, module in list(adapters(model)):
        _replace(model, name, module.base)
    return model


def adapters(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """The adapted modules by name."""
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


def config_of(model: nn.Module) -> LoraConfig | None:
    """Rank, scale and targets of the adapters of a model; None where it has none."""
    modules = dict(adapters(model))
    if not modules:
        return None
    first = next(iter(modules.values()))
    targets = tuple(dict.fromkeys(name.rpartition(".")[2] for name in modules))
    return LoraConfig(
        first.rank, first.scale * first.rank, dropout=first.dropout.p, targets=targets
    )


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return name.endswith(FACTORS)


def base_name(name: str) -> str:
    """A parameter's name as it is without adapters: that of a file."""
    return name.replace(f".{BASE}.", ".")


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, module)
