"""RecurrentGemma (Griffin, arXiv:2402.19427) as transformers stores it: two recurrent layers, one sliding.

A recurrent layer decays every channel by gates that are small matrices, one a head. The feed-forward is
half as wide as its field. Names, shapes and defaults: huggingface/transformers `models/recurrent_gemma`.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import (
    L,
    d,
    gated_feed_forward,
    h,
    linear,
    separate_attention,
)
from minilm.architectures.config_fields import flag, optional_size, quotient, size
from minilm.architectures.decoder import BLOCK, Defaults, decoder, heads_and_layers, pre_norms
from minilm.architectures.recurrent import (
    KEY_WIDTH,
    TAPS,
    Mixer,
    convolution,
    decay,
    inner_width,
    layers_of,
    within,
)
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ZERO

_DEFAULTS = Defaults(256000, 26, (2560, 10, None, None), context=0, tied=True)
_KINDS = ("recurrent", "attention")


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of RecurrentGemmaForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS, rounds=True)
    kinds = _kinds(config, num_layers)
    recurrent, sliding = (layers_of(kinds, kind) for kind in _KINDS)
    mixer = _recurrence(config, heads.symbols["d"], heads.symbols["h"])
    temporal = f"{BLOCK}.temporal_block"
    bias = flag(config, "attention_bias", False)
    output = Tensor(f"{temporal}.o_proj.bias", (d,), components.ATTENTION_OUTPUT, Role.ADDED, L)
    window = size(config, "attention_window_size", 2048)
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(f"{BLOCK}.temporal_pre_norm", f"{BLOCK}.channel_pre_norm"),
        *within(recurrent, *mixer.tensors),
        *within(sliding, *separate_attention(temporal, heads, qkv_bias=bias), output),
        *gated_feed_forward(f"{BLOCK}.mlp_block", bias=True),
        symbols={
            "f": size(config, "intermediate_size", 7680) // 2,
            **(mixer.symbols if recurrent else {}),
        },
        attention=(heads.attention(layers=sliding.repeat, window=window),) if sliding else (),
        state=recurrent.repeat * mixer.state if recurrent else ZERO,
        final_norm="model.final_norm",
    )


def _kinds(config: Mapping[str, Any], num_layers: int) -> list[str]:
    """`block_types`, over and over."""
    listed = config.get("block_types")
    if listed is None:
        listed = [_KINDS[0], _KINDS[0], _KINDS[1]]
    if not isinstance(listed, list) or not listed or any(kind not in _KINDS for kind in listed):
        expected = f"a list of {' and '.join(_KINDS)}"
        raise ConfigError("config.json: block_types", shortened(listed), expected)
    return [listed[i % len(listed)] for i in range(num_layers)]


def _recurrence(config: Mapping[str, Any], d_model: int, num_heads: int) -> Mixer:
    """The real-gated linear recurrent unit between two branches, of the width of all heads' blocks."""
    width = optional_size(config, "lru_width") or d_model
    inner, temporal = inner_width(width, d_model), f"{BLOCK}.temporal_block"
    inputs, gates = components.MIXER_INPUT, components.MIXER_GATES

    def gate(name: str) -> tuple[Tensor, ...]:
        full = f"{temporal}.rg_lru.{name}_gate"
        block = (h, KEY_WIDTH, KEY_WIDTH)
        return (
            Tensor(f"{full}_weight", block, gates, Role.MULTIPLIED, L),
            Tensor(f"{full}_bias", block[:2], gates, Role.ADDED, L),
        )

    tensors = (
        *linear(f"{temporal}.linear_y", inner, d, inputs, bias=True),
        *linear(f"{temporal}.linear_x", inner, d, inputs, bias=True),
        *convolution(f"{temporal}.conv_1d", inner, bias=True),
        decay(f"{temporal}.rg_lru.recurrent_param", inner),
        *gate("input"),
        *gate("recurrent"),
        *linear(f"{temporal}.linear_out", d, inner, components.MIXER_OUTPUT, bias=True),
    )
    block = quotient(width, num_heads, "lru_width", "num_attention_heads")
    symbols = {"I": width, "z": size(config, "conv1d_width", 4), "Q": block}
    if width % d_model == 0:
        del symbols["I"]
    return Mixer(tensors, symbols, inner * TAPS)  # the state, and all but one of the last inputs
