"""MiniMax-Text-01 as transformers stores it: every second layer has lightning attention, all have experts.

Its decay is fixed: the factors are buffers. Names, shapes and defaults: huggingface/transformers
`models/minimax`; expert by expert as the files have them. `minimax_text_01` and `minimax_m1` are the same
of remote code, without the buffers (MiniMaxAI/MiniMax-Text-01 `modeling_minimax_text_01.py`, as
vllm-project/vllm `models/minimax_text_01.py` loads it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    d,
    h,
    k,
    linear,
    norm,
    separate_attention,
)
from minilm.architectures.config_fields import field_name, layers, require, size
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.moe import LayerGroup, read_experts, routed_experts
from minilm.architectures.recurrent import Mixer, decay, kinds_of_layers, mixer_layers, within
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor
from minilm.ledger.symbols import ONE, as_polynomial

_DEFAULTS = Defaults(32000, 32, (4096, 32, 8, None), context=131072, experts=(8, 2, 14336))


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of MiniMaxForCausalLM and MiniMaxText01ForCausalLM for a config.json."""
    if config["model_type"] == "minimax_text_01":
        require(config, "shared_intermediate_size", 0)
        own = layout({**config, "layer_types": _kinds(config), "model_type": "minimax"})
        return replace(own, family="minimax_text_01", buffers=())
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    kinds = kinds_of_layers(
        config, num_layers, lambda i: "linear_attention" if i % 2 else "full_attention"
    )
    mixers = mixer_layers(kinds)
    mixer = _lightning_attention(heads)
    experts = read_experts(
        config,
        layers=num_layers,
        total=field_name(config, "num_local_experts", "num_experts"),
        width="intermediate_size",
        defaults=_DEFAULTS.experts,
    )
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *within(mixers.recurrent, *mixer.tensors),
        *within(mixers.attention, *separate_attention(ATTENTION, heads)),
        *routed_experts(f"{BLOCK}.block_sparse_moe", LayerGroup(), names=("w1", "w3", "w2")),
        symbols=experts,
        attention=mixers.attention_costs(heads),
        state=mixers.state(mixer),
        buffers=within(mixers.recurrent, *_decays(size(config, "block_size", 256))),
    )


def _kinds(config: Mapping[str, Any]) -> list[str]:
    """What `attn_type_list` says in numbers: 0 for lightning attention, 1 for softmax as all have without."""
    num_layers = layers(config, "num_hidden_layers", _DEFAULTS.layers)
    name = field_name(config, "attn_type_list", "decoder_attention_types")
    numbers = config.get(name)
    if numbers is None:
        return ["full_attention"] * num_layers
    if not isinstance(numbers, list) or any(number not in (0, 1) for number in numbers):
        raise ConfigError(f"config.json: {name}", shortened(numbers), f"{num_layers} of 0 and 1")
    return ["full_attention" if number else "linear_attention" for number in numbers]


def _lightning_attention(heads: Heads) -> Mixer:
    width = heads.queries
    tensors = (
        *linear(f"{ATTENTION}.qkv_proj", 3 * width, d, components.MIXER_INPUT),
        *linear(f"{ATTENTION}.output_gate", width, d, components.MIXER_GATES),
        *norm(f"{ATTENTION}.norm", components.MIXER_NORM, width=width),
        *linear(f"{ATTENTION}.out_proj", d, width, components.MIXER_OUTPUT),
    )
    return Mixer(tensors, {}, h * k * k)


def _decays(block: int) -> tuple[Tensor, ...]:
    tokens = as_polynomial(block)
    return (
        decay(f"{ATTENTION}.slope_rate", h, ONE, ONE),
        decay(f"{ATTENTION}.query_decay", h, tokens, ONE),
        decay(f"{ATTENTION}.key_decay", h, tokens, ONE),
        decay(f"{ATTENTION}.diagonal_decay", ONE, h, tokens, tokens),
    )
