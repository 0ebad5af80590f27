"""What stands before an encoder over a waveform: convolutions, a projection, positions by convolution.

A token of such an encoder is a frame, what the convolutions leave of some hundred samples: they run as often
for it as their strides say. Names, shapes and defaults: huggingface/transformers `models/wav2vec2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from reprlib import repr as shortened

from minilm.architectures.building_blocks import d, linear, norm
from minilm.architectures.config_fields import Config, flag, number, size, sizes
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial

WIDTHS = (512,) * 7


def convolution(
    name: str,
    shape: Sequence[Polynomial | int],
    component: str,
    *,
    bias: bool = True,
    role: Role = Role.MULTIPLIED,
    repeat: Polynomial = ONE,
    runs: int = 1,
) -> Tensors:
    """``name.weight`` (outputs, inputs of a group, taps) and ``name.bias``, ``runs`` times a token."""
    sides = tuple(map(as_polynomial, shape))
    weight = Tensor(f"{name}.weight", sides, component, role, repeat, runs=runs)
    if not bias:
        return (weight,)
    return weight, Tensor(f"{name}.bias", sides[:1], component, Role.ADDED, repeat)


def mask(config: Config, prefix: str, *, always: bool = False) -> Tensors:
    """The vector in the place of masked frames, where some are masked in training."""
    time, feature = (
        number(config, f"mask_{name}_prob", default)
        for name, default in (("time", 0.05), ("feature", 0.0))
    )
    if not always and time <= 0 and feature <= 0:
        return ()
    return (Tensor(f"{prefix}masked_spec_embed", (d,), components.TOKEN_EMBEDDING, Role.ADDED),)


def feature_extractor(
    config: Config,
    prefix: str,
    *,
    widths: Sequence[int] = WIDTHS,
    taps: Sequence[int] = (10, 3, 3, 3, 3, 2, 2),
    strides: Sequence[int] = (5, 2, 2, 2, 2, 2, 2),
    norms: str = "",
) -> Tensors:
    """The convolutions: the first has a norm, or each has one, as ``norms`` or the config says."""
    widths, taps, strides = (
        sizes(config, f"conv_{name}", default)
        for name, default in (("dim", widths), ("kernel", taps), ("stride", strides))
    )
    if not len(widths) == len(taps) == len(strides):
        got = f"{len(taps)} and {len(strides)}"
        raise ConfigError("config.json: conv_kernel, conv_stride", got, f"{len(widths)} sizes each")
    kind = norms or config.get("feat_extract_norm", "group")
    if kind not in ("group", "layer"):
        raise ConfigError("config.json: feat_extract_norm", shortened(kind), "group or layer")
    bias, part = flag(config, "conv_bias", False), components.FEATURE_EXTRACTOR
    tensors: list[Tensor] = []
    inputs = 1
    for i, (width, tap) in enumerate(zip(widths, taps, strict=True)):
        layer, runs = f"{prefix}feature_extractor.conv_layers.{i}", prod(strides[i + 1 :])
        tensors += convolution(f"{layer}.conv", (width, inputs, tap), part, bias=bias, runs=runs)
        if i == 0 or kind == "layer":
            wide = as_polynomial(width)
            tensors += norm(f"{layer}.layer_norm", part, width=wide, bias=True, repeat=ONE)
        inputs = width
    return tuple(tensors)


def feature_projection(inputs: int, prefix: str, *, has_norm: bool = True) -> Tensors:
    """From the ``inputs`` channels of the last convolution to the model's width."""
    part, wide = components.EMBEDDING_PROJECTION, as_polynomial(inputs)
    name = f"{prefix}feature_projection"
    gains = norm(f"{name}.layer_norm", components.EMBEDDING_NORM, width=wide, bias=True, repeat=ONE)
    return (
        *(gains if has_norm else ()),
        *linear(f"{name}.projection", d, wide, part, bias=True, repeat=ONE),
    )


def positional_convolution(
    config: Config, name: str, *, taps: str = "num_conv_pos_embeddings", default: int = 128
) -> Tensors:
    """A convolution in groups, not yet normed: ``name.weight`` and ``name.bias``."""
    width = size(config, "hidden_size", 768)
    groups = size(config, "num_conv_pos_embedding_groups", 16)
    if width % groups:
        expected = f"a divisor of hidden_size {width}"
        raise ConfigError("config.json: num_conv_pos_embedding_groups", f"{groups}", expected)
    shape = (d, width // groups, size(config, taps, default))
    return convolution(name, shape, components.POSITIONAL_CONVOLUTION)


def weight_normed(tensors: Tensors) -> Tensors:
    """A convolution whose weight is a direction and, for each tap, a length."""
    weight, *others = tensors
    stem = weight.name.removesuffix("weight") + "parametrizations.weight.original"
    lengths = (ONE, ONE, weight.shape[2])
    return (
        Tensor(f"{stem}0", lengths, weight.component, Role.SCALED),
        Tensor(f"{stem}1", weight.shape, weight.component, weight.role),
        *others,
    )
