"""JetMoE as transformers stores it: experts for queries and outputs of attention as for the feed-forward.

A token has e*g heads, those of its experts; keys and values are shared by all. Names, shapes and
defaults: huggingface/transformers `models/jetmoe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import E, Heads, L, d, e, g, k, linear
from minilm.architectures.config_fields import field_name, layers, size
from minilm.architectures.decoder import BLOCK, Defaults, decoder, pre_norms
from minilm.architectures.moe import LayerGroup, read_experts, router, stacked_experts
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import Polynomial

_DEFAULTS = Defaults(32000, 12, (2048, 32, 16, 128), context=4096, tied=True, experts=(8, 2, 5632))


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of JetMoeForCausalLM for a config.json."""
    experts = read_experts(
        config,
        layers=layers(config, "num_hidden_layers", _DEFAULTS.layers),
        total="num_local_experts",
        width="intermediate_size",
        defaults=_DEFAULTS.experts,
    )
    symbols = {
        "d": size(config, "hidden_size", 2048),
        "g": size(config, "num_key_value_heads", 16),
        "k": size(config, field_name(config, "kv_channels", "head_dim"), 128),
    }
    attention, mlp = f"{BLOCK}.self_attention", f"{BLOCK}.mlp"

    def stacked(name: str, rows: Polynomial, columns: Polynomial, component: str) -> Tensor:
        shape = (E, rows, columns)
        return Tensor(name, shape, component, Role.MULTIPLIED, L, routed=True)

    def bias(name: str, component: str) -> Tensor:
        return Tensor(f"{name}.bias", (d,), component, Role.ADDED, L)

    query, output = components.ATTENTION_QUERY, components.ATTENTION_OUTPUT
    queries = e * g * k
    return decoder(
        config,
        _DEFAULTS,
        Heads(symbols, queries, g * k),
        *pre_norms(),
        *router(f"{attention}.experts.router.layer", LayerGroup()),
        stacked(f"{attention}.experts.input_linear.weight", g * k, d, query),
        *linear(f"{attention}.kv_proj", 2 * g * k, d, components.ATTENTION_KEY_VALUE),
        stacked(f"{attention}.experts.output_linear.weight", d, g * k, output),
        bias(f"{attention}.experts", output),
        *router(f"{mlp}.router.layer", LayerGroup()),
        *stacked_experts(f"{mlp}.input_linear.weight", f"{mlp}.output_linear.weight", LayerGroup()),
        bias(mlp, components.EXPERTS_DOWN),
        symbols=experts,
        attention=(AttentionSpec(L, 2 * g * k, queries, queries),),
    )
