"""Lara Mini as transformers stores it: of five layers two have Gated DeltaNet, two windows, and one sees all.

One matrix makes what the Gated DeltaNet reads; every layer has experts, stacked, beside a shared one. Names,
shapes and defaults: huggingface/transformers `models/lara_mini`, and `conversion_mapping.py` for the names in
files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    d,
    layer_kinds,
    linear,
    s,
    separate_attention,
    window_size,
)
from minilm.architectures.config_fields import flag, size
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
    query_key_norms,
)
from minilm.architectures.moe import (
    LayerGroup,
    read_experts,
    router,
    shared_expert,
    stacked_experts,
)
from minilm.architectures.recurrent import (
    HEADS,
    KEY_HEADS,
    KEY_WIDTH,
    VALUE_WIDTH,
    Mixer,
    delta_net,
    layers_of,
    only_used,
    within,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ZERO

_DEFAULTS = Defaults(
    151936, 34, (1024, 16, 4, 128), 0, 131072, tied=True, experts=(128, 4, 512), window=512
)
_RECURRENT, _SLIDES, _SEES_ALL = _KINDS = (
    "linear_attention",
    "sliding_attention",
    "full_attention",
)
_PATTERN = (_RECURRENT, _SLIDES, _RECURRENT, _SEES_ALL, _SLIDES)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of LaraMiniForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    kinds = layer_kinds(config, "layer_types", num_layers, _KINDS, lambda i: _PATTERN[i % 5])
    recurrent = layers_of(kinds, _RECURRENT)
    mixer = _mixer(config)
    bias = flag(config, "attention_bias", False)
    windows = {_SLIDES: window_size(config, _DEFAULTS.window), _SEES_ALL: 0}
    group = LayerGroup()
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *within(recurrent, *mixer.tensors),
        *within(
            layers_of(kinds, *windows),
            *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
            *query_key_norms(),
        ),
        *router(f"{MLP}.gate", group),
        *stacked_experts(f"{MLP}.experts.gate_up_proj", f"{MLP}.experts.down_proj", group),
        *shared_expert(f"{MLP}.shared_expert", group, width=s),
        symbols={
            **only_used(mixer, recurrent),
            **read_experts(config, layers=num_layers, defaults=_DEFAULTS.experts),
            "s": size(config, "shared_expert_intermediate_size", 512),
        },
        attention=[
            heads.attention(layers=attends.repeat, window=window)
            for kind, window in windows.items()
            if (attends := layers_of(kinds, kind))
        ],
        state=recurrent.repeat * mixer.state if recurrent else ZERO,
    )


def _mixer(config: Mapping[str, Any]) -> Mixer:
    """Qwen's, with its four input matrices in one."""
    name = f"{BLOCK}.linear_attn"
    mixer = delta_net(name, config, is_joined=False, heads=(8, 16))
    width = 2 * KEY_HEADS * KEY_WIDTH + 2 * HEADS * VALUE_WIDTH + 2 * HEADS
    others = (
        replace(each, name=each.name.replace(".norm.", ".out_norm."))
        for each in mixer.tensors
        if each.component not in (components.MIXER_INPUT, components.MIXER_GATES)
    )
    joined = linear(f"{name}.in_proj", width, d, components.MIXER_INPUT)
    return replace(mixer, tensors=(*joined, *others))
