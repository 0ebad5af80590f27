"""MPT as transformers stores it: ALiBi, fused query-key-value, no bias anywhere, a tied head.

Names, shapes and defaults: huggingface/transformers `models/mpt/configuration_mpt.py` and
`modeling_mpt.py`. As there, `expansion_ratio`, `no_bias`, `learned_pos_emb` and `attn_config` change no
tensor: the feed-forward is 4d wide and positions have no table, in the published files too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import d, equal_heads, feed_forward, fused_attention
from minilm.architectures.config_fields import field_name
from minilm.architectures.decoder import Defaults, decoder, pre_norms
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(50368, 24, (2048, 16, None, None), tied=True)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of MptForCausalLM for a config.json."""
    heads = equal_heads(
        config,
        _DEFAULTS.heads,
        width=field_name(config, "d_model", "hidden_size"),
        heads=field_name(config, "n_heads", "num_attention_heads"),
    )
    block = "transformer.blocks.{i}"
    first, second = pre_norms(f"{block}.norm_1", f"{block}.norm_2")
    return decoder(
        config,
        _DEFAULTS,
        heads,
        first,
        *fused_attention(f"{block}.attn.Wqkv", f"{block}.attn.out_proj", heads),
        second,
        *feed_forward(f"{block}.ffn.up_proj", f"{block}.ffn.down_proj", 4 * d),
        table="transformer.wte",
        final_norm="transformer.norm_f",
        fields={
            "num_hidden_layers": field_name(config, "n_layers", "num_hidden_layers"),
            "max_position_embeddings": "max_seq_len",
        },
    )
