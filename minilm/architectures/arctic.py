"""Snowflake Arctic: experts beside a dense feed-forward as wide as the model, each with a norm of its own.

Names, shapes and defaults: Snowflake/snowflake-arctic-base `modeling_arctic.py`, as
vllm-project/vllm `models/arctic.py` loads it; erfanzar/EasyDeL `arctic_configuration.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import d, gated_feed_forward, norm, separate_attention
from minilm.architectures.config_fields import field_name, flag, size
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.moe import read_experts, routed_experts, split_layers
from minilm.architectures.recurrent import within
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor

_DEFAULTS = Defaults(32000, 32, (4096, 32, None, None), 14336, 4096, experts=(8, 1, 14336))
_NAMES = ("w1", "w3", "w2")


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of ArcticForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    every = size(config, "moe_layer_frequency", 2)
    split = split_layers(num_layers, lambda i: (i + 1) % every == 0)
    prefix = f"{BLOCK}.block_sparse_moe"
    symbols = dict(split.symbols)
    if split.experts:
        symbols |= read_experts(
            config,
            layers=split.expert_layers,
            total="num_local_experts",
            width="intermediate_size",
            defaults=_DEFAULTS.experts,
        )
    residual = flag(config, field_name(config, "parallel_attn_mlp_res", "use_residual"), False)
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *separate_attention(ATTENTION, heads),
        *within(split.dense, *gated_feed_forward(f"{prefix}.mlp", names=_NAMES)),
        *(within(split.experts, *_residual()) if residual else ()),
        *routed_experts(prefix, split.experts, names=_NAMES),
        symbols=symbols,
    )


def _residual() -> tuple[Tensor, ...]:
    return (
        *norm(f"{BLOCK}.residual_layernorm", components.FEED_FORWARD_NORM),
        *gated_feed_forward(f"{BLOCK}.residual_mlp", names=_NAMES, width=d),
    )
