"""InternLM2 and 2.5: Llama with queries, keys and values fused group by group, under names of its own.

Names, shapes and defaults: internlm/internlm2-7b `modeling_internlm2.py` and `configuration_internlm2.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import fused_attention, gated_feed_forward
from minilm.architectures.config_fields import flag
from minilm.architectures.decoder import BLOCK, Defaults, decoder, heads_and_layers, pre_norms
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(103168, 32, (4096, 32, None, None), 11008)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of InternLM2ForCausalLM for a config.json."""
    heads, _ = heads_and_layers(config, _DEFAULTS, head_dim=None)
    attention = f"{BLOCK}.attention"
    layout = decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(f"{BLOCK}.attention_norm", f"{BLOCK}.ffn_norm"),
        *fused_attention(
            f"{attention}.wqkv", f"{attention}.wo", heads, bias=flag(config, "bias", True)
        ),
        *gated_feed_forward(f"{BLOCK}.feed_forward", names=("w1", "w3", "w2")),
        table="model.tok_embeddings",
        head="output",
    )
    return replace(layout, ignored=(f"{attention}.rotary_emb.inv_freq",))
