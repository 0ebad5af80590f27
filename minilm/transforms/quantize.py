"""Linear layers whose weights are stored in few bits: made of a float model, or of what a file holds.

Only the linear layers of the blocks are quantized; embeddings, head, norms and convolutions are left as they
are. Shapes: o outputs, i inputs, g groups of s inputs that share a scale, n windows of t tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minilm.costs.generation_memory import KERNEL_ROWS
from minilm.errors import InputError
from minilm.formats.tensor_io import Array
from minilm.model.layers import Linear
from minilm.model.transformer import Transformer
from minilm.quantization.calibrated import round_calibrated
from minilm.quantization.integer_packing import IntegerPacking
from minilm.quantization.nf4_packing import NF4_VALUES
from minilm.quantization.packing import Packing, Rounded
from minilm.transforms.activations import layers_in_turn, linear_layers


class QuantizedLinear(nn.Module):
    """(..., i) -> (..., o): a linear layer with a code for each weight and a scale for each group.

    In inference mode, as generation is, a few rows are multiplied by the codes as they are, in torch's CPU
    kernels, which take the inputs in bfloat16. Elsewhere, and for more rows, the weights are made float32 for
    one product: all windows of an evaluation are computed alike, however short the last one is.
    """

    def __init__(
        self, in_features: int, out_features: int, packing: Packing, bias: nn.Parameter | None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.packing = packing
        self.format, self.group_size = packing.format, packing.group_size
        groups = in_features // (packing.group_size or in_features)
        if self.format == "int8":
            codes = torch.empty(out_features, in_features, dtype=torch.int8)
        else:  # two codes a byte, the first in the lower bits
            codes = torch.empty(out_features, in_features // 2, dtype=torch.uint8)
        self.codes: Tensor
        self.scales: Tensor
        self.bias: nn.Parameter | None
        self.register_buffer("codes", codes)
        self.register_buffer("scales", torch.empty(out_features, groups))
        self.register_parameter("bias", bias)
        self._kernel_operands: tuple[Tensor, Tensor] | None = None

    def set_rounded(self, rounded: Rounded) -> None:
        """Take these codes and scales."""
        codes = torch.from_numpy(rounded.codes)
        if self.format != "int8":
            unsigned = (codes + 8 if self.format == "int4" else codes).to(torch.uint8)
            codes = unsigned[:, ::2] | unsigned[:, 1::2] << 4
        self.codes, self.scales = codes, torch.from_numpy(rounded.scales)
        self._kernel_operands = None

    def forward(self, x: Tensor) -> Tensor:
        is_small = x.numel() <= KERNEL_ROWS * self.in_features
        if (
            is_small
            and torch.is_inference_mode_enabled()
            and has_kernel(self.format, (self.out_features, self.in_features), x.device)
        ):
            of_rows = self.multiply_codes(x.reshape(-1, self.in_features).bfloat16())
            if self.bias is not None:
                of_rows = of_rows + self.bias
            return of_rows.to(x.dtype).view(*x.shape[:-1], self.out_features)
        product: Tensor = _Product.apply(x, self, self.bias)  # type: ignore[no-untyped-call]
        return product

    def multiply_codes(self, rows: Tensor) -> Tensor:
        """(m, i) -> (m, o), bfloat16, without the bias; where it `has_kernel`."""
        if self._kernel_operands is None:
            self._kernel_operands = self._for_kernel()
        codes, scales = self._kernel_operands
        if self.format == "int8":
            return torch._weight_int8pack_mm(rows, codes, scales)
        return torch._weight_int4pack_mm_for_cpu(rows, codes, self.group_size, scales)

    def dequantized(self) -> Tensor:
        """(o, i), float32: what the codes stand for."""
        codes = self.codes if self.format == "int8" else self._unpacked()
        if self.format == "nf4":
            values = torch.from_numpy(NF4_VALUES).to(codes.device)[codes.int()]
        else:
            values = codes.float() - (8 if self.format == "int4" else 0)
        groups = values.view(self.out_features, self.scales.shape[1], -1)  # o g s
        return (groups * self.scales.float()[:, :, None]).view(self.out_features, -1)

    def _unpacked(self) -> Tensor:
        """(o, i/2) -> (o, i), codes of 0 to 15."""
        return torch.stack((self.codes & 15, self.codes >> 4), dim=-1).flatten(-2)

    def _for_kernel(self) -> tuple[Tensor, Tensor]:
        """Codes and scales in the order of torch's kernels; int4 has zero points besides, of zero."""
        scales = self.scales.bfloat16()
        if self.format == "int8":
            return self.codes, scales[:, 0].contiguous()
        groups = torch.stack((scales, torch.zeros_like(scales)), dim=-1).transpose(0, 1)  # g o 2
        codes = torch._convert_weight_to_int4pack_for_cpu(self._unpacked().int(), 1)
        return codes, groups.contiguous()


class _Product(torch.autograd.Function):
    """x times the matrix of a layer, which is dequantized again on the way back, not kept in float32.

    The bias is added in the product, as in a float layer: in bfloat16 a sum after it is rounded once more.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear, bias: Tensor | None) -> Tensor:
        ctx.layer = layer
        own_bias = None if bias is None else bias.to(x.dtype)
        return F.linear(x, layer.dequantized().to(x.dtype), own_bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor | None]:
        of_bias = None
        if ctx.needs_input_grad[2]:
            of_bias = gradient.flatten(0, -2).sum(0).to(ctx.layer.bias.dtype)
        return gradient @ ctx.layer.dequantized().to(gradient.dtype), None, of_bias


def parameter_count(model: nn.Module, *, trainable: bool = False) -> int:
    """Parameters of a model, each once, those of packed matrices too; or those that are trained alone."""
    own = sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)
    packed = (layer for layer in model.modules() if isinstance(layer, QuantizedLinear))
    return own + (0 if trainable else sum(p.in_features * p.out_features for p in packed))


def has_kernel(format: str, shape: tuple[int, ...], device: torch.device) -> bool:
    """Whether torch multiplies a few rows by a packed (o, i) matrix faster than by a float32 one.

    Of int8, where 16 divides the inputs: torch 2.13 ends the process with a segmentation fault at others.
    """
    outputs, inputs = shape
    return (
        device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        and ((format == "int8" and inputs % 16 == 0) or (format == "int4" and outputs % 16 == 0))
    )


def quantize_layers(model: nn.Module, packing: Packing) -> dict[str, QuantizedLinear]:
    """Put a QuantizedLinear in the place of every linear layer of the blocks; biases stay.

    Their codes have no values yet, or none on the meta device.
    """
    return {name: quantize_layer(model, name, packing) for name in linear_layers(model)}


def quantize_layer(model: nn.Module, name: str, packing: Packing) -> QuantizedLinear:
    """As `quantize_layers`, one of them."""
    layer = model.get_submodule(name)
    assert isinstance(layer, Linear)
    quantized = QuantizedLinear(layer.in_features, layer.out_features, packing, layer.bias)
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, quantized)
    return quantized


def joined_layers(layers: Sequence[QuantizedLinear]) -> QuantizedLinear:
    """One layer of the outputs of all, which have the same inputs and the same packing."""
    first = layers[0]
    biases: list[Tensor] = [each.bias for each in layers if each.bias is not None]
    bias = nn.Parameter(torch.cat(biases), requires_grad=False) if biases else None
    outputs = sum(each.out_features for each in layers)
    with torch.device("meta"):
        joined = QuantizedLinear(first.in_features, outputs, first.packing, bias)
    joined.codes = torch.cat([each.codes for each in layers])
    joined.scales = torch.cat([each.scales for each in layers])
    return joined


def dequantized_layer(layer: QuantizedLinear) -> Linear:
    """The same map with float32 weights."""
    with torch.device("meta"):
        linear = Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    linear.weight = nn.Parameter(layer.dequantized(), requires_grad=False)
    linear.bias = layer.bias  # type: ignore[assignment]
    return linear


def dequantize_layers(model: nn.Module) -> None:
    """Put a float32 layer in the place of every quantized one."""
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedLinear):
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, dequantized_layer(module))


def round_layers(
    model: Transformer, packing: Packing, windows: Tensor | None = None
) -> dict[str, Rounded]:
    """Codes and scales of every linear layer of the blocks, by name; ``model`` becomes the quantized one.

    ``windows`` (n, t) of tokens calibrate the rounding: block by block, on what the quantized blocks before
    it give. Raises InputError for weights that are not finite, before anything is changed.
    """
    layers = linear_layers(model)
    for name, layer in layers.items():
        if not bool(torch.isfinite(layer.weight).all()):
            raise InputError(f"{name}.weight", "values that are not finite", "numbers")
    if windows is None:
        rounded = {name: packing.round(_values(layer)) for name, layer in layers.items()}
        for name, quantized in quantize_layers(model, packing).items():
            quantized.set_rounded(rounded[name])
        return rounded
    assert isinstance(packing, IntegerPacking)
    return _round_calibrated(model, packing, windows)


def _round_calibrated(
    model: Transformer, packing: IntegerPacking, windows: Tensor
) -> dict[str, Rounded]:
    rounded: dict[str, Rounded] = {}
    for name, layer, hessian in layers_in_turn(model, windows):
        rounded[name] = round_calibrated(_values(layer), hessian, packing)
        quantize_layer(model, name, packing).set_rounded(rounded[name])
    return rounded


def _values(layer: Linear) -> Array:
    values: Array = layer.weight.detach().float().cpu().numpy().astype(np.float32)
    return values
