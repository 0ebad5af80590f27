"""MPT as transformers stores it: ALiBi, fused query-key-value, no bias anywhere, a tied head.

Names, shapes and defaults: huggingface/transformers `models/mpt/configuration_mpt.py` and
`modeling_mpt.py`. As there, `expansion_ratio`, `no_bias`, `learned_pos_emb` and `attn_config` change no
tensor: the feed-forward is 4d wide and positions have no table, in the published files too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    d,
    embedding,
    feed_forward,
    fused_attention,
    lm_head,
    norm,
    read_heads,
)
from minilm.architectures.config_fields import field_name, flag, layers, size
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of MptForCausalLM for a config.json."""
    heads = read_heads(
        config,
        width=field_name(config, "d_model", "hidden_size"),
        heads=field_name(config, "n_heads", "num_attention_heads"),
        kv_heads=None,
        head_dim=None,
        defaults=(2048, 16, None, None),
    )
    tied = flag(config, "tie_word_embeddings", True)
    symbols = {
        "V": size(config, "vocab_size", 50368),
        "L": layers(config, field_name(config, "n_layers", "num_hidden_layers"), 24),
        **heads.symbols,
    }
    block = "transformer.blocks.{i}"
    tensors = (
        embedding("transformer.wte"),
        *norm(f"{block}.norm_1", components.ATTENTION_NORM),
        *fused_attention(f"{block}.attn.Wqkv", f"{block}.attn.out_proj", heads),
        *norm(f"{block}.norm_2", components.FEED_FORWARD_NORM),
        *feed_forward(f"{block}.ffn.up_proj", f"{block}.ffn.down_proj", 4 * d),
        *norm("transformer.norm_f", components.FINAL_NORM, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        "mpt",
        tensors,
        symbols,
        ties=(("lm_head.weight", "transformer.wte.weight"),) if tied else (),
        attention=(heads.attention(),),
        context_length=size(config, "max_seq_len", 2048),
    )
