"""xLSTM (arXiv:2503.13427) as transformers stores it: matrix LSTM in the place of attention, and SwiGLU.

Queries and keys, values, and the feed-forward have widths that factors of the model's give. In weight mode
"fused" the matrices are joined. Names, shapes and defaults: huggingface/transformers `models/xlstm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import Heads, L, d, f, linear, norm
from minilm.architectures.config_fields import choice, field_name, flag, require, scaled_size, size
from minilm.architectures.decoder import Defaults, decoder
from minilm.architectures.recurrent import HEADS, KEY_WIDTH, VALUE_WIDTH, Mixer
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor
from minilm.ledger.symbols import ZERO

_DEFAULTS = Defaults(50304, 32, (4096, 8, None, None), context=0)
_BLOCK = "backbone.blocks.{i}"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of xLSTMForCausalLM for a config.json."""
    d_model = size(config, field_name(config, "hidden_size", "embedding_dim"), 4096)
    require(config, "hidden_size", d_model)
    bias = flag(config, "use_bias", False)
    is_fused = choice(config, "weight_mode", "single", ("single", "fused")) == "fused"
    mixer = _matrix_lstm(config, d_model, bias=bias, is_fused=is_fused)
    name = "ffn_round_up_to_multiple_of"
    multiple = size(config, name, 64)
    hidden = scaled_size(config, "ffn_proj_factor", 2.667, d_model)
    return decoder(
        {**config, "tie_word_embeddings": False},  # the implementation ties nothing
        _DEFAULTS,
        Heads({"d": d_model}, ZERO, ZERO),
        *norm(f"{_BLOCK}.norm_mlstm", components.MIXER_NORM, bias=bias),
        *mixer.tensors,
        *norm(f"{_BLOCK}.norm_ffn", components.FEED_FORWARD_NORM, bias=bias),
        *_feed_forward(bias=bias, is_fused=is_fused),
        symbols={
            **mixer.symbols,
            "f": size({name: -(-hidden // multiple) * multiple}, name),
        },
        attention=(),
        state=L * mixer.state,
        table="backbone.embeddings",
        final_norm="backbone.out_norm",
        fields={"num_hidden_layers": field_name(config, "num_hidden_layers", "num_blocks")},
    )


def _matrix_lstm(config: Mapping[str, Any], d_model: int, *, bias: bool, is_fused: bool) -> Mixer:
    """Each head's state is a matrix of keys by values, their sum, and a maximum."""
    heads = size(config, "num_heads", 8)
    widths = [
        scaled_size(config, name, default, d_model)
        for name, default in (("qk_dim_factor", 0.5), ("v_dim_factor", 1.0))
    ]
    if any(width % heads for width in widths):
        got = f"{widths[0]} of keys and {widths[1]} of values"
        raise ConfigError("config.json: num_heads", f"{heads}", f"a divisor of {got}")
    keys, values = HEADS * KEY_WIDTH, HEADS * VALUE_WIDTH
    prefix = f"{_BLOCK}.mlstm_layer"
    inputs, gates = components.MIXER_INPUT, components.MIXER_GATES
    projections: tuple[Tensor, ...]
    if is_fused:
        projections = (
            *linear(f"{prefix}.qkv_opreact", 2 * keys + 2 * values, d, inputs, bias=bias),
            *linear(f"{prefix}.ifgate_preact", 2 * HEADS, d, gates, bias=True),
        )
    else:
        projections = (
            *linear(f"{prefix}.q", keys, d, inputs, bias=bias),
            *linear(f"{prefix}.k", keys, d, inputs, bias=bias),
            *linear(f"{prefix}.v", values, d, inputs, bias=bias),
            *linear(f"{prefix}.ogate_preact", values, d, gates, bias=bias),
            *linear(f"{prefix}.igate_preact", HEADS, d, gates, bias=True),
            *linear(f"{prefix}.fgate_preact", HEADS, d, gates, bias=True),
        )
    tensors = (
        *projections,
        *norm(f"{prefix}.multihead_norm", components.MIXER_NORM, width=values, bias=bias),
        *linear(f"{prefix}.out_proj", d, values, components.MIXER_OUTPUT, bias=bias),
    )
    symbols = {"H": heads, "Q": widths[0] // heads, "O": widths[1] // heads}
    return Mixer(tensors, symbols, keys * VALUE_WIDTH + keys + HEADS)


def _feed_forward(*, bias: bool, is_fused: bool) -> tuple[Tensor, ...]:
    prefix = f"{_BLOCK}.ffn"
    down = linear(f"{prefix}.proj_down", d, f, components.FEED_FORWARD_DOWN, bias=bias)
    if is_fused:
        part = components.FEED_FORWARD_GATE_UP
        return (*linear(f"{prefix}.proj_up_gate_z", 2 * f, d, part, bias=bias), *down)
    return (
        *linear(f"{prefix}.proj_up_gate", f, d, components.FEED_FORWARD_GATE, bias=bias),
        *linear(f"{prefix}.proj_up", f, d, components.FEED_FORWARD_UP, bias=bias),
        *down,
    )
