"""ChatGLM (1, 2, 3) and GLM-4-9B of remote code: fused queries, keys and values, and fused gate and up.

ChatGLM 1 is a type of its own under the same name: LayerNorm, every bias and a feed-forward without a
gate; it is known by its fields. Names, shapes and defaults: THUDM/chatglm3-6b and THUDM/chatglm-6b
`modeling_chatglm.py` and `configuration_chatglm.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    d,
    equal_heads,
    f,
    feed_forward,
    fused_attention,
    linear,
    read_heads,
)
from minilm.architectures.config_fields import flag, size
from minilm.architectures.decoder import Defaults, decoder, pre_norms
from minilm.ledger import components
from minilm.ledger.layout import Layout

_FIRST = Defaults(150528, 28, (4096, 32, None, None), tied=True)
_LATER = Defaults(65024, 28, (4096, 32, None, 128), 13696)
_FIELDS_OF_FIRST = ("inner_hidden_size", "max_sequence_length", "position_encoding_2d")


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of ChatGLMForConditionalGeneration for a config.json."""
    is_first = any(config.get(name) is not None for name in _FIELDS_OF_FIRST)
    return _first(config) if is_first else _later(config)


def _first(config: Mapping[str, Any]) -> Layout:
    heads = equal_heads(config, _FIRST.heads)
    block = "transformer.layers.{i}"
    attention, mlp = f"{block}.attention", f"{block}.mlp"
    layout = decoder(
        config,
        _FIRST,
        heads,
        *pre_norms(f"{block}.input_layernorm", f"{block}.post_attention_layernorm", bias=True),
        *fused_attention(f"{attention}.query_key_value", f"{attention}.dense", heads, bias=True),
        *feed_forward(f"{mlp}.dense_h_to_4h", f"{mlp}.dense_4h_to_h", bias=True),
        symbols={"f": size(config, "inner_hidden_size", 16384)},
        table="transformer.word_embeddings",
        final_norm="transformer.final_layernorm",
        norm_bias=True,
        fields={
            "num_hidden_layers": "num_layers",
            "max_position_embeddings": "max_sequence_length",
        },
    )
    return replace(layout, ignored=(f"{attention}.rotary_emb.inv_freq",))


def _later(config: Mapping[str, Any]) -> Layout:
    groups = "multi_query_group_num" if flag(config, "multi_query_attention", False) else None
    heads = read_heads(
        config, kv_heads=groups, head_dim="kv_channels", defaults=(*_LATER.heads[:2], 1, 128)
    )
    bias = flag(config, "add_bias_linear", False)
    is_layer_norm = not flag(config, "rmsnorm", True)
    block = "transformer.encoder.layers.{i}"
    qkv, dense = f"{block}.self_attention.query_key_value", f"{block}.self_attention.dense"
    width = heads.queries + 2 * heads.keys
    last = "transformer.encoder.final_layernorm" if flag(config, "post_layer_norm", True) else ""
    has_qkv_bias = bias or flag(config, "add_qkv_bias", False)
    layout = decoder(
        # Its head is never tied: the class does not say which matrix it is.
        {**config, "tie_word_embeddings": False},
        _LATER,
        heads,
        *pre_norms(
            f"{block}.input_layernorm", f"{block}.post_attention_layernorm", bias=is_layer_norm
        ),
        *linear(qkv, width, d, components.ATTENTION_QUERY_KEY_VALUE, bias=has_qkv_bias),
        *linear(dense, d, heads.queries, components.ATTENTION_OUTPUT, bias=bias),
        *linear(f"{block}.mlp.dense_h_to_4h", 2 * f, d, components.FEED_FORWARD_GATE_UP, bias=bias),
        *linear(f"{block}.mlp.dense_4h_to_h", d, f, components.FEED_FORWARD_DOWN, bias=bias),
        table="transformer.embedding.word_embeddings",
        final_norm=last,
        norm_bias=is_layer_norm,
        head="transformer.output_layer",
        fields={
            "vocab_size": "padded_vocab_size",
            "num_hidden_layers": "num_layers",
            "intermediate_size": "ffn_hidden_size",
            "max_position_embeddings": "seq_length",
        },
    )
    return replace(layout, ignored=("transformer.rotary_pos_emb.inv_freq",))
