"""LoRA (Hu et al. 2021, arXiv:2106.09685): a frozen linear map plus a trained one of low rank.

DoRA (Liu et al. 2024, arXiv:2402.09353): and the length of each row of the sum is trained apart.

`apply` wraps modules of a model, `merge` folds the adapters into their weights, `set_adapter` says which are
used.

Shapes: b sequences, t tokens, i inputs, o outputs, r rank.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minilm.architectures.adapter_map import HEAD, adapted_shapes
from minilm.config.lora import LoraConfig
from minilm.errors import InputError
from minilm.ledger.layout_changes import FACTORS, MAGNITUDE
from minilm.model.dropout import Dropout
from minilm.model.layers import Linear
from minilm.model.transformer import Transformer
from minilm.transforms.quantize import QuantizedLinear, dequantized_layer

# A parameter of the base is named as without adapters, but for this.
BASE = "base"


class LoRALinear(nn.Module):
    """(..., i) -> (..., o): base(x) + strength * scale * B A x.

    ``base`` is any module with in_features and out_features, a quantized one or another adapter too.
    A and B are float32 whatever the base is in: half precision overflows in training. B begins as zeros, so
    that the first output is the base's. ``strength`` is 1 where the adapter is used, as it is trained.

    With DoRA, W + scale * B A has rows of the lengths ``lora_magnitude_vector`` (o,), which begin as those
    of W. Of their own lengths, which they are divided by, no gradient is taken (section 4.3).
    """

    def __init__(
        self, base: nn.Module, lora: LoraConfig, generator: torch.Generator, name: str
    ) -> None:
        super().__init__()
        linear: Any = base
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.base = base.requires_grad_(False)
        self.config, self.name, self.strength = lora, name, 1.0
        self.dropout = Dropout(lora.dropout)
        device = next(itertools.chain(base.parameters(), base.buffers())).device
        with device:
            self.lora_A = Linear(self.in_features, lora.rank, bias=False, dtype=torch.float32)
            self.lora_B = Linear(lora.rank, self.out_features, bias=False, dtype=torch.float32)
            lengths = torch.empty(self.out_features, dtype=torch.float32) if lora.dora else None
        if device.type != "meta":
            bound = self.in_features**-0.5  # as torch's Linear begins
            a = torch.rand(self.lora_A.weight.shape, generator=generator) * 2 - 1
            with torch.no_grad():
                self.lora_A.weight.copy_(a * bound)
                self.lora_B.weight.zero_()
                lengths = self._sum().norm(dim=1) if lora.dora else None
        self.lora_magnitude_vector: nn.Parameter | None
        self.register_parameter(
            MAGNITUDE, None if lengths is None else nn.Parameter(lengths.detach())
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        if self.strength == 0:
            return y
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.lora_A.weight.dtype)
        low: Tensor = self.lora_A(self.dropout(x)) * (self.config.scale * self.strength)  # b t r
        change = F.linear(low, self.lora_B.weight).to(y.dtype)
        if self.lora_magnitude_vector is None:
            return y + change
        bias = getattr(self.base, "bias", None)
        product = y if bias is None else y - bias.to(y.dtype)
        ratio = (self.lora_magnitude_vector / _lengths(self._sum())).to(y.dtype)
        return y + (ratio - 1) * product + ratio * change

    @torch.no_grad()
    def _sum(self) -> Tensor:
        """(o, i): W + strength * scale * B A."""
        base: Any = self.base
        weight = base.dequantized() if isinstance(base, QuantizedLinear) else base.weight.float()
        update = self.lora_B.weight.float() @ self.lora_A.weight.float()
        total: Tensor = weight + self.config.scale * self.strength * update
        return total

    @torch.no_grad()
    def merged(self, *, keep_zeros: bool = False) -> nn.Linear:
        """The base with the sum as its weight, rounded to the base's dtype once.

        In float32 if W is quantized. ``keep_zeros``: what is zero in W stays zero.
        """
        base = self.base
        if isinstance(base, LoRALinear):
            base = base.merged(keep_zeros=keep_zeros)
        elif isinstance(base, QuantizedLinear):  # in few bits, rounding would undo the update
            base = dequantized_layer(base)
        if not isinstance(base, nn.Linear):
            raise InputError("merge", f"an adapter of a {type(base).__name__}", "one of matrices")
        if self.strength == 0:
            return base
        self.base = base
        weight = self._sum()
        if self.lora_magnitude_vector is not None:
            weight = weight * (self.lora_magnitude_vector / _lengths(weight))[:, None]
        if keep_zeros:
            weight = weight.masked_fill(base.weight == 0, 0.0)
        # A tied table keeps its own.
        base.weight = nn.Parameter(weight.to(base.weight.dtype), requires_grad=False)
        return base


def _lengths(matrix: Tensor) -> Tensor:
    """(o, i) -> (o,), of rows of zeros not zero."""
    lengths: Tensor = matrix.norm(dim=1)
    return lengths.clamp_min(torch.finfo(matrix.dtype).tiny)


def apply(
    model: Transformer,
    lora: LoraConfig,
    generator: torch.Generator | None = None,
    *,
    name: str = "default",
    beside: bool = False,
) -> Transformer:
    """Freeze ``model`` and put adapters on the matrices of ``lora.targets``, in place; return it.

    ``beside`` others that the model has, if that is allowed: all are added. Raises ConfigError for targets
    and a rank that do not fit the model, InputError where it has adapters, or one of the same name.
    """
    others = configs_of(model)
    if others and not beside:
        raise InputError("model", "a model with adapters", "one without", "merge them first")
    if name in others:
        raise InputError(name, "the name of two adapters", "names that differ")
    if others and (lora.dora or any(each.dora for each in others.values())):
        # It scales all of W: its change and that of another adapter do not add up.
        raise InputError(name, "a DoRA adapter among several", "LoRA adapters, whose products add")
    generator = generator or torch.Generator().manual_seed(0)
    names = adapted_shapes(model.config, lora)
    model.requires_grad_(False)
    for path in names:
        _replace(model, path, LoRALinear(model.get_submodule(path), lora, generator, name))
    return model


def merge(model: Transformer, *, keep_zeros: bool = False) -> Transformer:
    """Fold every adapter into the weight of its base, in place. A tied head becomes a tensor of its own.

    With ``keep_zeros`` a pruned base stays pruned; then the result is not exactly the adapter.
    """
    modules = dict(adapters(model))
    for name, module in modules.items():
        if name.removesuffix(f".{BASE}") in modules.keys() - {name}:
            continue  # within another
        if name == HEAD and model.config.tied_embeddings:
            model.config = replace(model.config, tied_embeddings=False)
        _replace(model, name, module.merged(keep_zeros=keep_zeros))
    return model


def set_adapter(model: nn.Module, names: str | Mapping[str, float] | None) -> None:
    """Use one of the adapters that `load` gave ``model``, a weighted sum, or with None the base alone.

    An adapter is named as its folder. Raises InputError for a name that is none of the model's, and for
    weights of a DoRA adapter, which scales all of a matrix, other than 0 and 1.
    """
    strengths = {names: 1.0} if isinstance(names, str) else names or {}
    if not isinstance(strengths, Mapping):
        raise InputError("adapter", repr(names), "a name, weights by name, or None")
    configs = configs_of(model)
    if not configs:
        raise InputError("adapter", f"{names!r} for a model without adapters", "one that has some")
    for name, strength in strengths.items():
        if type(strength) not in (int, float) or not math.isfinite(strength):
            raise InputError("adapter", f"{strength!r} times {name}", "a number of times")
        if name not in configs:
            raise InputError("adapter", repr(name), f"one of {', '.join(configs)}")
        if configs[name].dora and strength not in (0, 1):
            raise InputError("adapter", f"{strength} times {name}, a DoRA adapter", "0 or 1 times")
    for _, module in adapters(model):
        module.strength = float(strengths.get(module.name, 0.0))


def adapters(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """The adapted modules by path: of several adapters of one matrix, the last one first."""
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


def configs_of(model: nn.Module) -> dict[str, LoraConfig]:
    """What the adapters of a model are, by name, in the order in which they were applied."""
    configs = {module.name: module.config for _, module in adapters(model)}
    return dict(reversed(configs.items()))


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return name.endswith((*FACTORS, MAGNITUDE))


def base_name(name: str) -> str:
    """A parameter's name as it is without adapters: that of a file."""
    return name.replace(f".{BASE}", "")


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, module)
