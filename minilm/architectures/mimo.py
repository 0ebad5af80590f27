"""MiMo-V2-Flash as transformers stores it: values narrower than keys, more key/value heads where it
slides.

Sliding layers have sinks; five in six slide, and the first layer is dense. Names, shapes and defaults:
huggingface/transformers `models/mimo_v2_flash`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import d, g, h, k, layer_kinds, linear, window_size
from minilm.architectures.config_fields import flag, size
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.moe import (
    LayerGroup,
    group_of,
    routed_fields,
    sparse_feed_forward,
    sparse_layers,
    split_layers,
)
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import Polynomial, symbol

v = symbol("v")

_DEFAULTS = Defaults(
    152576, 48, (4096, 64, 4, 192), 16384, 131072, experts=(256, 8, 2048), window=129
)
_KINDS = ("sliding_attention", "full_attention")


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of MiMoV2FlashForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    listed = layer_kinds(
        config, "layer_types", num_layers, _KINDS, lambda i: _KINDS[i == 0 or (i + 1) % 6 == 0]
    )
    window = window_size(config, _DEFAULTS.window)
    if config.get("sliding_window_size") is not None:
        window = size(config, "sliding_window_size") + 1
    sparse = sparse_feed_forward(
        config,
        MLP,
        split_layers(num_layers, sparse_layers(config, num_layers, lambda i: i > 0)),
        _DEFAULTS.experts,
        fields=routed_fields(config),
        correction="gate.e_score_correction_bias",
    )
    bias = flag(config, "attention_bias", False)
    tensors: list[Tensor] = []
    kinds: list[AttentionSpec] = []
    for kind, groups, span in ((_KINDS[0], 2 * g, window), (_KINDS[1], g, 0)):
        group = group_of([i for i in range(num_layers) if listed[i] == kind], num_layers)
        if group:
            tensors += _keys_values(group, groups, bias=bias, sinks=kind == _KINDS[0])
            cache = groups * (k + v)
            kinds.append(AttentionSpec(group.repeat, cache, h * k, h * v, span))
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *linear(f"{ATTENTION}.q_proj", h * k, d, components.ATTENTION_QUERY, bias=bias),
        *tensors,
        *linear(f"{ATTENTION}.o_proj", d, h * v, components.ATTENTION_OUTPUT),
        *sparse.tensors,
        symbols={**sparse.symbols, "v": size(config, "v_head_dim", 128)},
        buffers=sparse.buffers,
        attention=kinds,
    )


def _keys_values(
    group: LayerGroup, groups: Polynomial, *, bias: bool, sinks: bool
) -> tuple[Tensor, ...]:
    repeat, layers = group.repeat, group.layers
    name, part = f"{ATTENTION}.attention_sink_bias", components.ATTENTION_SINKS
    key, value = components.ATTENTION_KEY, components.ATTENTION_VALUE
    return (
        *linear(f"{ATTENTION}.k_proj", groups * k, d, key, bias=bias, repeat=repeat, layers=layers),
        *linear(
            f"{ATTENTION}.v_proj", groups * v, d, value, bias=bias, repeat=repeat, layers=layers
        ),
        *((Tensor(name, (h,), part, Role.SCALED, repeat, layers),) if sinks else ()),
    )
