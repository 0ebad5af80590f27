"""DBRX as transformers stores it: fused queries, keys and values, and each matrix of all experts in one.

The experts' matrices are (E*m, d), the one down among them too. Names, shapes and defaults:
huggingface/transformers `models/dbrx`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import E, L, d, fused_attention, m, norm, read_heads
from minilm.architectures.config_fields import field_name, layers, sub_config
from minilm.architectures.decoder import Defaults, decoder
from minilm.architectures.moe import LayerGroup, read_experts, router
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor

_DEFAULTS = Defaults(32000, 24, (2048, 16, 1, None), context=2048, experts=(4, 1, 3584))


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of DbrxForCausalLM for a config.json."""
    names = {
        "hidden_size": field_name(config, "d_model", "hidden_size"),
        "num_attention_heads": field_name(config, "n_heads", "num_attention_heads"),
        "num_hidden_layers": field_name(config, "n_layers", "num_hidden_layers"),
        "max_position_embeddings": field_name(config, "max_seq_len", "max_position_embeddings"),
    }
    heads = read_heads(
        {**sub_config(config, "attn_config"), **config},
        width=names["hidden_size"],
        heads=names["num_attention_heads"],
        kv_heads="kv_n_heads",
        head_dim=None,
        defaults=_DEFAULTS.heads,
    )
    experts = read_experts(
        sub_config(config, "ffn_config"),
        layers=layers(config, names["num_hidden_layers"], _DEFAULTS.layers),
        total="moe_num_experts",
        active="moe_top_k",
        width="ffn_hidden_size",
        defaults=_DEFAULTS.experts,
    )
    block = "transformer.blocks.{i}"
    attention = f"{block}.norm_attn_norm"
    matrices = {
        "w1": components.EXPERTS_GATE,
        "v1": components.EXPERTS_UP,
        "w2": components.EXPERTS_DOWN,
    }
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *norm(f"{attention}.norm_1", components.ATTENTION_NORM),
        *fused_attention(f"{attention}.attn.Wqkv", f"{attention}.attn.out_proj", heads),
        *norm(f"{attention}.norm_2", components.FEED_FORWARD_NORM),
        *router(f"{block}.ffn.router.layer", LayerGroup()),
        *(
            Tensor(
                f"{block}.ffn.experts.mlp.{name}", (E * m, d), part, Role.MULTIPLIED, L, routed=True
            )
            for name, part in matrices.items()
        ),
        symbols=experts,
        table="transformer.wte",
        final_norm="transformer.norm_f",
        fields=names,
    )
