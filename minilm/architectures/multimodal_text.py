"""Language models that transformers keeps inside larger ones: Moshi's and that of Llama 3.2 Vision
(Mllama).

Moshi's feed-forward is fused and half as wide as its field; its table has one more row than the
vocabulary. Mllama's table has eight more; some of its layers look at a picture in place of the text.
Names, shapes and defaults: huggingface/transformers `models/moshi` (MoshiForCausalLM) and
`models/mllama` (MllamaForCausalLM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    V,
    attention_kinds,
    d,
    f,
    gated_feed_forward,
    k,
    linear,
    norm,
    separate_attention,
    window_size,
)
from minilm.architectures.config_fields import layer_numbers, require, size
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.moe import LayerGroup, group_of
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE

_MOSHI = Defaults(32000, 32, (4096, 32, None, None), 22528, 3000, window=3000)
_MLLAMA = Defaults(128256, 40, (4096, 32, 8, None), 14336, 131072)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of MoshiForCausalLM and MllamaForCausalLM for a config.json."""
    require(config, "tie_word_embeddings", False)  # the table is longer than the head
    return _moshi(config) if config["model_type"] == "moshi" else _mllama(config)


def _with_rows(layout: Layout, more: int) -> Layout:
    table, *others = layout.tensors
    return replace(layout, tensors=(replace(table, shape=(V + more, d)), *others))


def _moshi(config: Mapping[str, Any]) -> Layout:
    heads, num_layers = heads_and_layers(config, _MOSHI)
    inner = size(config, "ffn_dim", _MOSHI.feed_forward)
    if inner % 2:
        raise ConfigError("config.json: ffn_dim", f"{inner}", "an even number")
    # Each matrix is inside a module of its own.
    attention = [
        replace(each, name=each.name.replace(".weight", ".linear.weight"))
        for each in separate_attention(ATTENTION, heads)
    ]
    result = decoder(
        config,
        _MOSHI,
        heads,
        *pre_norms(),
        *attention,
        *linear(f"{MLP}.fc1", 2 * f, d, components.FEED_FORWARD_GATE_UP),
        *linear(f"{MLP}.fc2", d, f, components.FEED_FORWARD_DOWN),
        symbols={"f": inner // 2},
        attention=attention_kinds(
            heads, num_layers, num_layers, window_size(config, _MOSHI.window)
        ),
    )
    return _with_rows(result, 1)


def _mllama(config: Mapping[str, Any]) -> Layout:
    heads, num_layers = heads_and_layers(config, _MLLAMA, head_dim=None)
    crossing = layer_numbers(config, "cross_attention_layers", (3, 8, 13, 18, 23, 28, 33, 38))
    own = group_of([i for i in range(num_layers) if i not in crossing], num_layers)
    cross = group_of([i for i in range(num_layers) if i in crossing], num_layers)
    tensors: list[Tensor] = []
    if own:
        repeat, at = own.repeat, own.layers
        tensors += separate_attention(ATTENTION, heads, repeat=repeat, layers=at)
    if cross:
        repeat, at = cross.repeat, cross.layers
        matrices = separate_attention(f"{BLOCK}.cross_attn", heads, repeat=repeat, layers=at)
        tensors += [
            replace(each, component=components.CROSS_ATTENTION, role=Role.ONCE) for each in matrices
        ]
        tensors += _cross_norms(cross)
    return _with_rows(
        decoder(
            config,
            _MLLAMA,
            heads,
            *pre_norms(),
            *tensors,
            *gated_feed_forward(MLP),
            attention=(heads.attention(layers=own.repeat),) if own else (),
        ),
        8,
    )


def _cross_norms(group: LayerGroup) -> tuple[Tensor, ...]:
    part, repeat, at = components.CROSS_ATTENTION, group.repeat, group.layers
    gates = ("cross_attn_attn_gate", "cross_attn_mlp_gate")
    prefix = f"{BLOCK}.cross_attn"
    return (
        *norm(f"{prefix}.q_norm", part, width=k, repeat=repeat, layers=at),
        *norm(f"{prefix}.k_norm", part, width=k, repeat=repeat, layers=at),
        *(Tensor(f"{BLOCK}.{name}", (ONE,), part, Role.SCALED, repeat, at) for name in gates),
    )
