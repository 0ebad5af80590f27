"""CodeShell: GPT-2's block with grouped heads, RoPE or learned positions, matrices stored as Linear does.

Names, shapes and defaults: WisdomShell/CodeShell-7B `modeling_codeshell.py` and
`configuration_codeshell.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    T,
    d,
    feed_forward,
    feed_forward_width,
    fused_attention,
    read_heads,
)
from minilm.architectures.config_fields import flag, size, size_or_null
from minilm.architectures.decoder import Defaults, decoder, pre_norms
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor

_DEFAULTS = Defaults(70144, 42, (4096, 32, 1, None), context=8192, tied=True)
_BLOCK = "transformer.h.{i}"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of CodeShellForCausalLM for a config.json."""
    is_grouped = flag(config, "group_query_attention", True)
    heads = read_heads(
        config,
        width="n_embd",
        heads="n_head",
        kv_heads="num_query_groups" if is_grouped else None,
        head_dim=None,
        defaults=_DEFAULTS.heads,
    )
    width = size_or_null(config, "n_inner", 4 * heads.symbols["d"])
    up, down = f"{_BLOCK}.mlp.c_fc", f"{_BLOCK}.mlp.c_proj"
    attention = f"{_BLOCK}.attn"
    symbols = {"f": width}
    positions: tuple[Tensor, ...] = ()
    if config.get("position_embedding_type", "learned_absolute") == "learned_absolute":
        symbols["T"] = size(config, "n_positions", _DEFAULTS.context)
        part = components.POSITION_EMBEDDING
        positions = (Tensor("transformer.wpe.weight", (T, d), part, Role.LOOKED_UP),)
    layout = decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(f"{_BLOCK}.ln_1", f"{_BLOCK}.ln_2", bias=True),
        *fused_attention(f"{attention}.c_attn", f"{attention}.c_proj", heads, bias=True),
        *feed_forward(up, down, feed_forward_width(width, heads.symbols["d"]), bias=True),
        symbols=symbols,
        before=positions,
        table="transformer.wte",
        final_norm="transformer.ln_f",
        norm_bias=True,
        fields={"num_hidden_layers": "n_layer", "max_position_embeddings": "n_positions"},
    )
    return replace(layout, ignored=(f"{attention}.rotary_emb.inv_freq",))
