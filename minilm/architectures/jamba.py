"""Jamba as transformers stores it: one layer in eight attends, others have Mamba, every second has experts.

Names, shapes and defaults: huggingface/transformers `models/jamba`; expert by expert as the files have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from minilm.architectures.building_blocks import separate_attention
from minilm.architectures.config_fields import field_name, size, whole_number
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.moe import (
    dense_feed_forward,
    read_experts,
    routed_experts,
    split_layers,
)
from minilm.architectures.recurrent import mamba, mixer_layers, only_used, within
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(65536, 32, (4096, 32, 8, None), 14336, 262144, experts=(16, 2, 14336))


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of JambaForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS, head_dim=None)
    attends = _every(config, "attn_layer", (8, 4))
    mixers = mixer_layers(
        ["full_attention" if attends(i) else "linear_attention" for i in range(num_layers)]
    )
    mixer = mamba(f"{BLOCK}.mamba", config, heads.symbols["d"], of_jamba=True)
    total = field_name(config, "num_experts", "num_local_experts")
    is_sparse = _every(config, "expert_layer", (2, 1))
    split = split_layers(
        num_layers, is_sparse if size(config, total, _DEFAULTS.experts[0]) > 1 else lambda i: False
    )
    symbols = {**split.symbols, **only_used(mixer, mixers.recurrent)}
    if split.experts:
        symbols |= read_experts(
            config,
            layers=split.expert_layers,
            total=total,
            width="intermediate_size",
            defaults=_DEFAULTS.experts,
        )
    mlp = f"{BLOCK}.feed_forward"
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(feed_forward=f"{BLOCK}.pre_ff_layernorm"),
        *within(mixers.recurrent, *mixer.tensors),
        *within(mixers.attention, *separate_attention(ATTENTION, heads)),
        *dense_feed_forward(mlp, split.dense),
        *routed_experts(mlp, split.experts, router="router"),
        symbols=symbols,
        attention=mixers.attention_costs(heads),
        state=mixers.state(mixer),
        final_norm="model.final_layernorm",
    )


def _every(
    config: Mapping[str, Any], name: str, defaults: tuple[int, int]
) -> Callable[[int], bool]:
    """Whether layer i is the ``offset``-th of a period."""
    period = size(config, f"{name}_period", defaults[0])
    offset = whole_number(config, f"{name}_offset", defaults[1])
    return lambda i: i % period == offset
