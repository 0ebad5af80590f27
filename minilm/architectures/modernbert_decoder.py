"""ModernBERT's decoder as transformers stores it: no norm before the first attention, a head with a norm.

Two layers in three slide. Names, shapes and defaults: huggingface/transformers
`models/modernbert_decoder`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    attention_kinds,
    d,
    equal_heads,
    f,
    linear,
    norm,
    separate_attention,
    sliding_layers,
)
from minilm.architectures.config_fields import flag, layers, size, whole_number_or_null
from minilm.architectures.decoder import BLOCK, Defaults, decoder
from minilm.architectures.moe import group_of
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor
from minilm.ledger.symbols import ONE

_DEFAULTS = Defaults(50368, 22, (768, 12, None, None), 1152, 8192, tied=True)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of ModernBertDecoderForCausalLM for a config.json."""
    heads = equal_heads(config, _DEFAULTS.heads)
    num_layers = layers(config, "num_hidden_layers", _DEFAULTS.layers)
    gain_bias = flag(config, "norm_bias", False)
    bias, mlp_bias = flag(config, "attention_bias", False), flag(config, "mlp_bias", False)
    period = size(config, "global_attn_every_n_layers", 3)
    sliding = sliding_layers(config, num_layers, lambda i: i % period != 0)
    window = whole_number_or_null(config, "local_attention", 128) // 2
    attention_norm: tuple[Tensor, ...] = ()
    after_first = group_of(range(1, num_layers), num_layers)
    if after_first:
        attention_norm = norm(
            f"{BLOCK}.attn_norm",
            components.ATTENTION_NORM,
            bias=gain_bias,
            repeat=after_first.repeat,
            layers=after_first.layers,
        )
    embedding_norm, part = components.EMBEDDING_NORM, components.LM_HEAD
    result = decoder(
        config,
        _DEFAULTS,
        heads,
        *attention_norm,
        *separate_attention(f"{BLOCK}.attn", heads, qkv_bias=bias, output_bias=bias, output="Wo"),
        *norm(f"{BLOCK}.mlp_norm", components.FEED_FORWARD_NORM, bias=gain_bias),
        *linear(f"{BLOCK}.mlp.Wi", 2 * f, d, components.FEED_FORWARD_GATE_UP, bias=mlp_bias),
        *linear(f"{BLOCK}.mlp.Wo", d, f, components.FEED_FORWARD_DOWN, bias=mlp_bias),
        table="model.embeddings.tok_embeddings",
        before=norm("model.embeddings.norm", embedding_norm, bias=gain_bias, repeat=ONE),
        final_norm="model.final_norm",
        norm_bias=gain_bias,
        head="decoder",
        head_bias=flag(config, "decoder_bias", True),
        attention=attention_kinds(heads, num_layers, sliding, window),
    )
    dense_bias = flag(config, "classifier_bias", False)
    head = (
        *linear("lm_head.dense", d, d, part, bias=dense_bias, repeat=ONE),
        *norm("lm_head.norm", part, bias=gain_bias, repeat=ONE),
    )
    return replace(result, tensors=(*result.tensors, *head))
