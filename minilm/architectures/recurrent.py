"""Mixers that stand in the place of attention and keep a state of constant size: their tensors and states.

Mamba (arXiv:2312.00752), Mamba-2 (arXiv:2405.21060), Gated DeltaNet (arXiv:2412.06464) and the short
convolution of LFM2. All of them remember the last inputs of a causal convolution besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from minilm.architectures.building_blocks import Heads, L, d, layer_kinds, linear, norm
from minilm.architectures.config_fields import field_name, flag, scaled_size, size
from minilm.architectures.moe import LayerGroup, group_of
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Role, Tensor
from minilm.ledger.symbols import ONE, ZERO, Polynomial, symbol

# Letters that no other architecture has: minilm/ledger/symbols.py says what they stand for.
INNER, STATE, TAPS, RANK, HEADS, GROUPS = (symbol(letter) for letter in "IXziHJ")
KEY_HEADS, KEY_WIDTH, VALUE_WIDTH = (symbol(letter) for letter in "aQO")

RECURRENT, ATTENTION = "linear_attention", "full_attention"
# What earlier files call them.
_EARLIER = {"mamba": RECURRENT, "attention": ATTENTION}


@dataclass(frozen=True)
class Mixer:
    """A mixer's tensors, the values of its letters, and the elements of a state in one layer."""

    tensors: tuple[Tensor, ...]
    symbols: Mapping[str, int]
    state: Polynomial


@dataclass(frozen=True)
class MixerLayers:
    """The layers with attention and those with a recurrent mixer, each None where there are none."""

    attention: LayerGroup | None
    recurrent: LayerGroup | None

    def attention_costs(self, heads: Heads) -> tuple[AttentionSpec, ...]:
        """Of the layers that have it."""
        return (heads.attention(layers=self.attention.repeat),) if self.attention else ()

    def state(self, mixer: Mixer) -> Polynomial:
        """Elements of the states of all layers that have ``mixer``."""
        return self.recurrent.repeat * mixer.state if self.recurrent else ZERO


def kinds_of_layers(
    config: Mapping[str, Any],
    num_layers: int,
    otherwise: Callable[[int], str],
    *,
    name: str = "layer_types",
    names: tuple[str, ...] = (RECURRENT, ATTENTION),
) -> list[str]:
    """Each layer's kind, one of ``names`` or what earlier files call it, or ``otherwise`` of its number."""
    listed = layer_kinds(config, name, num_layers, (*names, *_EARLIER), otherwise)
    return [_EARLIER.get(kind, kind) for kind in listed]


def mixer_layers(kinds: list[str]) -> MixerLayers:
    """The two groups of layers, by the kind of each."""
    return MixerLayers(layers_of(kinds, ATTENTION), layers_of(kinds, RECURRENT))


def layers_of(kinds: list[str], *wanted: str) -> LayerGroup | None:
    """The layers whose kind is one of ``wanted``."""
    return group_of([i for i, kind in enumerate(kinds) if kind in wanted], len(kinds))


def within(group: LayerGroup | None, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the layers of ``group`` alone."""
    if group is None:
        return ()
    return tuple(replace(each, repeat=group.repeat, layers=group.layers) for each in tensors)


def only_used(mixer: Mixer, group: LayerGroup | None) -> dict[str, int]:
    """The mixer's letters where layers have it."""
    return dict(mixer.symbols) if group else {}


def convolution(name: str, channels: Polynomial, *, bias: bool = False) -> tuple[Tensor, ...]:
    """A causal convolution of each channel with itself: ``name.weight`` (channels, 1, taps)."""
    part = components.CONVOLUTION
    weight = Tensor(f"{name}.weight", (channels, ONE, TAPS), part, Role.MULTIPLIED, L)
    return (weight, Tensor(f"{name}.bias", (channels,), part, Role.ADDED, L))[: 1 + bias]


def decay(name: str, *shape: Polynomial, role: Role = Role.SCALED) -> Tensor:
    """Parameters of how a state decays and what skips it, used element by element."""
    return Tensor(name, shape, components.MIXER_DECAY, role, L)


def inner_width(width: int, d_model: int) -> Polynomial:
    """A multiple of d where the width is one, as people write it; else a letter."""
    return INNER if width % d_model else (width // d_model) * d


def mamba(prefix: str, config: Mapping[str, Any], d_model: int, *, of_jamba: bool = False) -> Mixer:
    """Mamba's mixer. Jamba's fields have other names, and it normalises the time step and B and C."""
    fields = (
        ("mamba_expand", "mamba_d_state", "mamba_d_conv", "mamba_dt_rank")
        if of_jamba
        else ("expand", "state_size", "conv_kernel", "time_step_rank")
    )
    biases = ("mamba_proj_bias", "mamba_conv_bias") if of_jamba else ("use_bias", "use_conv_bias")
    expand, state, kernel, rank = fields
    width = scaled_size(config, expand, 2, d_model)
    if not of_jamba:  # written beside the factor, and what counts
        width = size(config, "intermediate_size", width)
    inner = inner_width(width, d_model)
    is_automatic = config.get(rank, "auto") == "auto"
    symbols = {
        "I": width,
        "X": size(config, state, 16),
        "z": size(config, kernel, 4),
        "i": -(-d_model // 16) if is_automatic else size(config, rank),
    }
    bias, conv_bias = flag(config, biases[0], False), flag(config, biases[1], True)
    gates = components.MIXER_GATES
    norms = (("dt", RANK), ("b", STATE), ("c", STATE)) if of_jamba else ()
    tensors = (
        *linear(f"{prefix}.in_proj", 2 * inner, d, components.MIXER_INPUT, bias=bias),
        *convolution(f"{prefix}.conv1d", inner, bias=conv_bias),
        *linear(f"{prefix}.x_proj", RANK + 2 * STATE, inner, gates),
        *(
            tensor
            for name, of in norms
            for tensor in norm(f"{prefix}.{name}_layernorm", components.MIXER_NORM, width=of)
        ),
        *linear(f"{prefix}.dt_proj", inner, RANK, gates, bias=True),
        decay(f"{prefix}.A_log", inner, STATE),
        decay(f"{prefix}.D", inner),
        *linear(f"{prefix}.out_proj", d, inner, components.MIXER_OUTPUT, bias=bias),
    )
    return Mixer(tensors, _without(symbols, inner), inner * (STATE + TAPS))


@dataclass(frozen=True)
class Mamba2Sizes:
    """A Mamba-2 mixer's inner width, and its heads, groups, state and taps."""

    width: int
    heads: int
    groups: int
    state: int
    kernel: int


def mamba2(
    prefix: str,
    sizes: Mamba2Sizes,
    d_model: int,
    *,
    bias: bool = False,
    output_bias: bool | None = None,
    conv_bias: bool = True,
    has_norm: bool = True,
) -> Mixer:
    """Mamba-2's mixer: one in-projection for gate, input, both matrices of the state and the time step."""
    inner = inner_width(sizes.width, d_model)
    channels = inner + 2 * GROUPS * STATE
    out = bias if output_bias is None else output_bias
    symbols = {
        "I": sizes.width,
        "H": sizes.heads,
        "J": sizes.groups,
        "X": sizes.state,
        "z": sizes.kernel,
    }
    tensors = (
        *linear(
            f"{prefix}.in_proj", inner + channels + HEADS, d, components.MIXER_INPUT, bias=bias
        ),
        *convolution(f"{prefix}.conv1d", channels, bias=conv_bias),
        decay(f"{prefix}.dt_bias", HEADS, role=Role.ADDED),
        decay(f"{prefix}.A_log", HEADS),
        decay(f"{prefix}.D", HEADS),
        *(norm(f"{prefix}.norm", components.MIXER_NORM, width=inner) if has_norm else ()),
        *linear(f"{prefix}.out_proj", d, inner, components.MIXER_OUTPUT, bias=out),
    )
    return Mixer(tensors, _without(symbols, inner), inner * STATE + channels * TAPS)


def read_mamba2(
    config: Mapping[str, Any],
    d_model: int,
    *,
    groups: str = "mamba_n_groups",
    width: int | None = None,
    defaults: tuple[int, int] = (128, 256),
) -> Mamba2Sizes:
    """The sizes under Bamba's field names; ``defaults`` are those of heads and state."""
    inner = width or scaled_size(config, "mamba_expand", 2, d_model)
    heads = size(config, field_name(config, "mamba_n_heads", "n_mamba_heads"), defaults[0])
    if inner % heads:
        raise ConfigError("config.json: mamba_n_heads", f"{heads}", f"a divisor of {inner}")
    return Mamba2Sizes(
        inner,
        heads,
        size(config, groups, 1),
        size(config, "mamba_d_state", defaults[1]),
        size(config, "mamba_d_conv", 4),
    )


def _without(symbols: Mapping[str, int], inner: Polynomial) -> dict[str, int]:
    return {name: value for name, value in symbols.items() if name != "I" or inner == INNER}


def delta_net(
    prefix: str,
    config: Mapping[str, Any],
    *,
    is_joined: bool,
    heads: tuple[int, int] = (16, 32),
) -> Mixer:
    """Qwen's Gated DeltaNet: values and gate may have more ``heads`` than queries and keys, by default too.

    ``is_joined``: one matrix makes all of them and another the gates of every head.
    """
    keys, values = KEY_HEADS * KEY_WIDTH, HEADS * VALUE_WIDTH
    symbols = {
        "a": size(config, "linear_num_key_heads", heads[0]),
        "H": size(config, "linear_num_value_heads", heads[1]),
        "Q": size(config, "linear_key_head_dim", 128),
        "O": size(config, "linear_value_head_dim", 128),
        "z": size(config, "linear_conv_kernel_dim", 4),
    }
    if symbols["H"] % symbols["a"]:
        raise ConfigError(
            "config.json: linear_num_value_heads",
            f"{symbols['H']}",
            f"a multiple of {symbols['a']} key heads",
        )
    channels = 2 * keys + values
    inputs, gates = components.MIXER_INPUT, components.MIXER_GATES
    if is_joined:
        projections = (
            *linear(f"{prefix}.in_proj_qkvz", channels + values, d, inputs),
            *linear(f"{prefix}.in_proj_ba", 2 * HEADS, d, gates),
        )
    else:
        projections = (
            *linear(f"{prefix}.in_proj_qkv", channels, d, inputs),
            *linear(f"{prefix}.in_proj_z", values, d, inputs),
            *linear(f"{prefix}.in_proj_b", HEADS, d, gates),
            *linear(f"{prefix}.in_proj_a", HEADS, d, gates),
        )
    tensors = (
        *projections,
        *convolution(f"{prefix}.conv1d", channels),
        decay(f"{prefix}.dt_bias", HEADS, role=Role.ADDED),
        decay(f"{prefix}.A_log", HEADS),
        *norm(f"{prefix}.norm", components.MIXER_NORM, width=VALUE_WIDTH),
        *linear(f"{prefix}.out_proj", d, values, components.MIXER_OUTPUT),
    )
    return Mixer(tensors, symbols, HEADS * KEY_WIDTH * VALUE_WIDTH + channels * TAPS)


def short_convolution(prefix: str, kernel: int, *, bias: bool) -> Mixer:
    """LFM2's: two gates around a causal convolution, which remembers its last inputs and nothing else."""
    tensors = (
        *linear(f"{prefix}.in_proj", 3 * d, d, components.MIXER_INPUT, bias=bias),
        *convolution(f"{prefix}.conv", d, bias=bias),
        *linear(f"{prefix}.out_proj", d, d, components.MIXER_OUTPUT, bias=bias),
    )
    return Mixer(tensors, {"z": kernel}, d * TAPS)
