"""TeleChat and TeleChat2: one matrix for keys and values, and biases behind attention and feed-forward.

Names, shapes and defaults: Tele-AI/telechat-7B `modeling_telechat.py` and `configuration_telechat.py`;
grouped heads are TeleChat2's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    d,
    f,
    gated_feed_forward,
    linear,
    norm,
    read_heads,
)
from minilm.architectures.config_fields import field_name, flag
from minilm.architectures.decoder import Defaults, decoder, pre_norms
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE

_DEFAULTS = Defaults(160256, 30, (4096, 32, None, None), 12288, 8192, tied=True)
_BLOCK = "transformer.h.{i}"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of TelechatForCausalLM for a config.json."""
    heads = read_heads(config, heads="n_head", head_dim=None, defaults=_DEFAULTS.heads)
    attention, mlp = f"{_BLOCK}.self_attention", f"{_BLOCK}.mlp"
    table = "transformer.word_embeddings"
    first = norm(f"{table}_layernorm", components.EMBEDDING_NORM, repeat=ONE)
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(f"{_BLOCK}.input_layernorm", f"{_BLOCK}.post_attention_layernorm"),
        *linear(f"{attention}.query", heads.queries, d, components.ATTENTION_QUERY),
        *linear(f"{attention}.key_value", 2 * heads.keys, d, components.ATTENTION_KEY_VALUE),
        *linear(f"{attention}.dense", d, heads.queries, components.ATTENTION_OUTPUT, bias=True),
        *gated_feed_forward(mlp)[:2],
        *linear(f"{mlp}.down_proj", d, f, components.FEED_FORWARD_DOWN, bias=True),
        before=first if flag(config, "embed_layernorm", False) else (),
        table=table,
        final_norm="transformer.ln_f",
        fields={
            "num_hidden_layers": "n_layer",
            "intermediate_size": "ffn_hidden_size",
            "max_position_embeddings": field_name(config, "training_seqlen", "seq_length"),
        },
    )
