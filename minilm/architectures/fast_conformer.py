"""Conformers over the frames that convolutions leave of a spectrogram: Parakeet, LASR, Granite Speech 5.

A layer is a feed-forward, attention, a convolution and another feed-forward. Costs are those of a frame that
is left, without what relative positions cost; none of Granite's, which leaves out more between its layers.
Names, shapes and defaults: huggingface/transformers `models/{parakeet,lasr,granite_speech5}`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from minilm.architectures.building_blocks import Heads, L, d, f, h, k, linear, norm, read_heads
from minilm.architectures.config_fields import Config, flag, layers, size
from minilm.architectures.vision_tower import Part, running_statistics
from minilm.architectures.waveform import convolution
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial


@dataclass(frozen=True)
class Kind:
    """The defaults of an encoder's type and what its layers have."""

    width: int
    depth: int
    inner: int
    bands: int
    taps: int
    biases: bool  # of linear maps and convolutions, by default
    norm_biases: bool = True
    is_granite: bool = False


PARAKEET = Kind(1024, 24, 4096, 80, 9, biases=True)
LASR = Kind(512, 17, 2048, 128, 32, biases=False, norm_biases=False)
GRANITE = Kind(1024, 16, 4096, 80, 7, biases=True, is_granite=True)


def conformer_heads(config: Config, kind: Kind) -> Heads:
    """As these encoders have them: as many keys as queries, in Granite whatever its fields say."""
    groups = None if kind.is_granite else "num_key_value_heads"
    return read_heads(config, kv_heads=groups, defaults=(kind.width, 8, None, None), rounds=True)


def fast_conformer(config: Config, kind: Kind, prefix: str) -> Part:
    """All of it below ``prefix``, with the letters of a model that it is alone."""
    heads = conformer_heads(config, kind)
    block, part = f"{prefix}layers.{{i}}", components.CONVOLUTION_MODULE
    expansion = size(config, "conv_expansion_factor", 2) if kind.is_granite else 1
    wide = expansion * d
    before = _before_granite if kind.is_granite else _lasr if kind is LASR else _parakeet
    tensors = (
        *before(config, kind, prefix),
        *_feed_forward(config, kind, f"{block}.feed_forward1"),
        *_attention(config, kind, f"{block}.self_attn", heads),
        *_convolution(config, kind, f"{block}.conv", wide),
        *norm(f"{block}.conv.norm", part, width=wide, bias=True),
        *_feed_forward(config, kind, f"{block}.feed_forward2"),
        *(
            tensor
            for name, component in _NORMS
            for tensor in norm(f"{block}.{name}", component, bias=kind.norm_biases)
        ),
        *(norm(f"{prefix}out_norm", components.FINAL_NORM, repeat=ONE) if kind is LASR else ()),
    )
    if kind.is_granite:
        rows = as_polynomial(size(config, "vocab_size", 16384))
        head = components.LM_HEAD
        tensors += linear(f"{prefix}out", rows, d, head, bias=True, repeat=ONE)
        tensors += linear(f"{prefix}out_mid", d, rows, head, bias=True, repeat=ONE)
        once = {Role.MULTIPLIED: Role.ONCE}
        tensors = tuple(replace(t, role=once.get(t.role, t.role)) for t in tensors)
    symbols = {
        "L": layers(config, "num_hidden_layers", kind.depth),
        "f": size(config, "intermediate_size", kind.inner),
        **heads.symbols,
    }
    return Part(tensors, symbols, running_statistics(f"{block}.conv.norm", wide, part, L))


_NORMS = (
    ("norm_feed_forward1", components.FEED_FORWARD_NORM),
    ("norm_self_att", components.ATTENTION_NORM),
    ("norm_conv", components.CONVOLUTION_MODULE),
    ("norm_feed_forward2", components.FEED_FORWARD_NORM),
    ("norm_out", components.FEED_FORWARD_OUTPUT_NORM),
)


def _feed_forward(config: Config, kind: Kind, name: str) -> Tensors:
    bias = flag(config, "attention_bias", kind.biases)
    return (
        *linear(f"{name}.linear1", f, d, components.FEED_FORWARD_UP, bias=bias),
        *linear(f"{name}.linear2", d, f, components.FEED_FORWARD_DOWN, bias=bias),
    )


def _attention(config: Config, kind: Kind, name: str, heads: Heads) -> Tensors:
    bias = flag(config, "attention_bias", kind.biases) and not kind.is_granite
    inner, keys, part = heads.queries, heads.keys, components.POSITION_EMBEDDING
    maps = (
        *linear(f"{name}.q_proj", inner, d, components.ATTENTION_QUERY, bias=bias),
        *linear(f"{name}.k_proj", keys, d, components.ATTENTION_KEY, bias=bias),
        *linear(f"{name}.v_proj", keys, d, components.ATTENTION_VALUE, bias=bias),
        *linear(
            f"{name}.o_proj", d, inner, components.ATTENTION_OUTPUT, bias=bias or kind.is_granite
        ),
    )
    if kind is LASR:  # rotary
        return maps
    if kind.is_granite:
        rows = 2 * size(config, "max_position_embeddings", 512) + 1
        table = Tensor(
            f"{name}.rel_pos_emb.weight", (as_polynomial(rows), k), part, Role.LOOKED_UP, L
        )
        return (*maps, table)
    return (
        *maps,
        Tensor(f"{name}.relative_k_proj.weight", (inner, d), part, Role.ONCE, L),
        *(Tensor(f"{name}.bias_{n}", (h, k), part, Role.ADDED, L) for n in "uv"),
    )


def _convolution(config: Config, kind: Kind, name: str, wide: Polynomial) -> Tensors:
    """Two maps of each frame, in Granite linear ones, and a convolution of each channel between them."""
    bias = flag(config, "convolution_bias", kind.biases) and not kind.is_granite
    taps, part = size(config, "conv_kernel_size", kind.taps), components.CONVOLUTION_MODULE
    depthwise = convolution(f"{name}.depthwise_conv", (wide, 1, taps), part, bias=bias, repeat=L)
    if kind.is_granite:
        return (
            *linear(f"{name}.pointwise_lin1", 2 * wide, d, part, bias=True),
            *depthwise,
            *linear(f"{name}.pointwise_lin2", d, wide, part, bias=True),
        )
    return (
        *convolution(f"{name}.pointwise_conv1", (2 * d, d, 1), part, bias=bias, repeat=L),
        *depthwise,
        *convolution(f"{name}.pointwise_conv2", (d, d, 1), part, bias=bias, repeat=L),
    )


def _parakeet(config: Config, kind: Kind, prefix: str) -> Tensors:
    """Convolutions over time and frequency: the first whole, the others by channel and with a map behind."""
    channels = size(config, "subsampling_conv_channels", 256)
    factor, stride = (
        size(config, "subsampling_factor", 8),
        size(config, "subsampling_conv_stride", 2),
    )
    taps, bands = (
        size(config, "subsampling_conv_kernel_size", 3),
        size(config, "num_mel_bins", kind.bands),
    )
    depth, part, stem = (
        factor.bit_length() - 1,
        components.FEATURE_EXTRACTOR,
        f"{prefix}subsampling",
    )
    tensors: list[Tensor] = []
    heights = bands
    for i in range(max(1, depth)):
        heights = (heights + 2 * ((taps - 1) // 2) - taps) // stride + 1
        runs = max(1, heights) * stride ** max(0, depth - 1 - i)
        shape = (channels, 1, taps, taps)
        name = f"{stem}.layers.{3 * i - 1 if i else 0}"
        tensors += convolution(name, shape, part, runs=runs)
        if i:
            behind = f"{stem}.layers.{3 * i}"
            tensors += convolution(behind, (channels, channels, 1, 1), part, runs=runs)
    inputs = channels * (bands // stride**depth)
    if not inputs:
        expected = f"at least {stride**depth}"
        raise ConfigError("config.json: num_mel_bins", f"{bands}", expected)
    return (
        *tensors,
        *linear(f"{stem}.linear", d, as_polynomial(inputs), part, bias=True, repeat=ONE),
    )


def _lasr(config: Config, kind: Kind, prefix: str) -> Tensors:
    """Two convolutions over time between two maps."""
    channels = size(config, "subsampling_conv_channels", 256)
    stride, taps = (
        size(config, "subsampling_conv_stride", 2),
        size(config, "subsampling_conv_kernel_size", 5),
    )
    bands, part, stem = (
        size(config, "num_mel_bins", kind.bands),
        components.FEATURE_EXTRACTOR,
        f"{prefix}subsampler",
    )
    first, last = (
        linear(f"{stem}.dense_{i}", d, as_polynomial(inputs), part, bias=True, repeat=ONE)
        for i, inputs in enumerate((bands, channels))
    )
    return (
        *(replace(tensor, runs=stride**2) for tensor in first),
        *convolution(f"{stem}.conv_0", (d, d, taps), part, runs=stride),
        *convolution(f"{stem}.conv_1", (channels, d, taps), part),
        *last,
    )


def _before_granite(config: Config, kind: Kind, prefix: str) -> Tensors:
    """Four frames side by side."""
    inputs, part = (
        as_polynomial(4 * size(config, "num_mel_bins", kind.bands)),
        components.FEATURE_EXTRACTOR,
    )
    return linear(f"{prefix}input_linear", d, inputs, part, bias=True, repeat=ONE)
