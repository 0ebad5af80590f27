"""Zamba: Mamba in every layer, in some after one block that they all share and that sees the embeddings too.

Each head of the mixer has maps of its own in one tensor. The shared block is stored in the first of its
layers. Names, shapes and defaults: huggingface/transformers `models/zamba`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import d, gated_feed_forward, linear, norm
from minilm.architectures.config_fields import (
    flag,
    layers,
    require,
    scaled_size,
    size,
    whole_number,
)
from minilm.architectures.decoder import BLOCK, Defaults
from minilm.architectures.moe import LayerGroup
from minilm.architectures.recurrent import (
    HEADS,
    RANK,
    RECURRENT,
    STATE,
    TAPS,
    VALUE_WIDTH,
    Mixer,
    convolution,
    decay,
    kinds_of_layers,
    within,
)
from minilm.architectures.zamba2 import (
    HYBRID,
    most_sharing,
    shared_attention,
    shared_decoder,
    wide_heads,
)
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE

_DEFAULTS = Defaults(32000, 76, (3712, 16, 16, None), context=4096, tied=True)
_FIRST = (RECURRENT, RECURRENT, HYBRID)  # before the period begins
_SHARED = f"{BLOCK}.shared_transf"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of ZambaForCausalLM for a config.json."""
    require(config, "tie_word_embeddings", True)  # else transformers ties no block either
    num_layers = layers(config, "num_hidden_layers", _DEFAULTS.layers)
    kinds = _kinds(config, num_layers)
    hybrid = [i for i, kind in enumerate(kinds) if kind == HYBRID]
    most_sharing(hybrid)
    heads = wide_heads(config, defaults=(3712, 16, 16))
    d_model = heads.symbols["d"]
    shared = []
    if hybrid:
        block = (
            *shared_attention(_SHARED, heads),
            *gated_feed_forward(f"{_SHARED}.feed_forward"),
        )
        first = within(LayerGroup(ONE, (hybrid[0],)), *block)
        shared = [tuple(replace(each, runs=len(hybrid)) for each in first)]
    plain, after = (_mixer(config, d_model, prefix) for prefix in ("", ".mamba_decoder"))
    inner = {"f": size(config, "intermediate_size", 14848)}
    return shared_decoder(config, _DEFAULTS, heads, kinds, (plain, after), shared, inner)


def _kinds(config: Mapping[str, Any], num_layers: int) -> list[str]:
    period = size(config, "attn_layer_period", 6)
    offset = whole_number(config, "attn_layer_offset", 4)

    def otherwise(layer: int) -> str:
        if num_layers < len(_FIRST):
            expected = f"at least {len(_FIRST)}, or a list of their kinds"
            raise ConfigError("config.json: num_hidden_layers", f"{num_layers}", expected)
        if layer < len(_FIRST):
            return _FIRST[layer]
        return HYBRID if (layer - len(_FIRST)) % period == offset else RECURRENT

    name = "layers_block_type"
    return kinds_of_layers(config, num_layers, otherwise, name=name, names=(RECURRENT, HYBRID))


def _mixer(config: Mapping[str, Any], d_model: int, prefix: str) -> Mixer:
    """Mamba's, whose heads each map the time step, B and C by themselves."""
    width = scaled_size(config, "mamba_expand", 2, d_model)
    heads = size(config, "n_mamba_heads", 2)
    if width % heads:
        raise ConfigError("config.json: n_mamba_heads", f"{heads}", f"a divisor of {width}")
    rank = config.get("mamba_dt_rank", "auto")
    symbols = {
        "H": heads,
        "O": width // heads,
        "X": size(config, "mamba_d_state", 16),
        "z": size(config, "mamba_d_conv", 4),
        "i": -(-d_model // 16) if rank == "auto" else size(config, "mamba_dt_rank"),
    }
    inner, gates = HEADS * VALUE_WIDTH, components.MIXER_GATES
    bias = flag(config, "mamba_proj_bias", False)
    name = f"{BLOCK}{prefix}.mamba"

    def of_heads(field: str, *shape: Any, role: Role) -> Tensor:
        return replace(decay(f"{name}.{field}", HEADS, *shape, role=role), component=gates)

    tensors = (
        *norm(f"{BLOCK}{prefix}.input_layernorm", components.MIXER_NORM),
        *linear(f"{name}.in_proj", 2 * inner, d, components.MIXER_INPUT, bias=bias),
        *convolution(f"{name}.conv1d", inner, bias=flag(config, "mamba_conv_bias", True)),
        of_heads("x_proj_weight", RANK + 2 * STATE, VALUE_WIDTH, role=Role.MULTIPLIED),
        of_heads("dt_proj_weight", VALUE_WIDTH, RANK, role=Role.MULTIPLIED),
        of_heads("dt_proj_bias", VALUE_WIDTH, role=Role.ADDED),
        decay(f"{name}.A_log", HEADS, VALUE_WIDTH, STATE),
        decay(f"{name}.D", HEADS, VALUE_WIDTH),
        *linear(f"{name}.out_proj", d, inner, components.MIXER_OUTPUT, bias=bias),
    )
    return Mixer(tensors, symbols, inner * (STATE + TAPS))
