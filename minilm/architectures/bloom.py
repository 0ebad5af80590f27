"""BLOOM as transformers stores it: a norm on the embedding, ALiBi, fused query-key-value, a tied head.

Names, shapes and defaults: huggingface/transformers `models/bloom/configuration_bloom.py` and
`modeling_bloom.py`. The feed-forward is 4d wide. The published files leave out `transformer.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    d,
    equal_heads,
    feed_forward,
    fused_attention,
    norm,
)
from minilm.architectures.config_fields import field_name, optional_size
from minilm.architectures.decoder import Defaults, decoder
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE

_DEFAULTS = Defaults(250880, 2, (64, 8, None, None), context=0, tied=True)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of BloomForCausalLM for a config.json."""
    heads = equal_heads(
        config,
        _DEFAULTS.heads,
        width=field_name(config, "hidden_size", "n_embed"),
        heads=field_name(config, "n_head", "num_attention_heads"),
    )
    block, table = "transformer.h.{i}", "transformer.word_embeddings"
    attention, mlp = f"{block}.self_attention", f"{block}.mlp"
    result = decoder(
        config,
        _DEFAULTS,
        heads,
        *norm(f"{block}.input_layernorm", components.ATTENTION_NORM, bias=True),
        *fused_attention(f"{attention}.query_key_value", f"{attention}.dense", heads, bias=True),
        *norm(f"{block}.post_attention_layernorm", components.FEED_FORWARD_NORM, bias=True),
        *feed_forward(f"{mlp}.dense_h_to_4h", f"{mlp}.dense_4h_to_h", 4 * d, bias=True),
        table=table,
        before=norm(f"{table}_layernorm", components.EMBEDDING_NORM, bias=True, repeat=ONE),
        final_norm="transformer.ln_f",
        norm_bias=True,
        fields={"num_hidden_layers": field_name(config, "n_layer", "num_hidden_layers")},
    )
    # ALiBi has no longest context; files may say what the model was trained with.
    context = optional_size(config, "seq_length") or 0
    return replace(result, optional_prefix="transformer.", context_length=context)
