"""GPT-Neo as transformers stores it: GPT-2 with separate projections and windows in some layers.

Names, shapes and defaults: huggingface/transformers `models/gpt_neo/configuration_gpt_neo.py` and
`modeling_gpt_neo.py`. Queries, keys and values have no bias. Published files hold each causal mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    T,
    d,
    embedding,
    equal_heads,
    feed_forward,
    feed_forward_width,
    lm_head,
    norm,
    separate_attention,
)
from minilm.architectures.config_fields import field_name, flag, layers, size, size_or_null
from minilm.config.validation import LARGEST_LAYER_COUNT
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import ONE, as_polynomial


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of GPTNeoForCausalLM for a config.json."""
    heads = equal_heads(
        config, (2048, 16, None, None), heads=field_name(config, "num_heads", "num_attention_heads")
    )
    inner = size_or_null(config, "intermediate_size", 4 * heads.symbols["d"])
    hidden = feed_forward_width(inner, heads.symbols["d"])
    tied = flag(config, "tie_word_embeddings", True)
    symbols = {
        "V": size(config, "vocab_size", 50257),
        "T": size(config, "max_position_embeddings", 2048),
        "L": layers(config, field_name(config, "num_layers", "num_hidden_layers"), 24),
        "f": inner,
        **heads.symbols,
    }
    block = "transformer.h.{i}"
    attention = f"{block}.attn.attention"
    tensors = (
        embedding("transformer.wte"),
        Tensor("transformer.wpe.weight", (T, d), components.POSITION_EMBEDDING, Role.LOOKED_UP),
        *norm(f"{block}.ln_1", components.ATTENTION_NORM, bias=True),
        *separate_attention(attention, heads, output_bias=True, output="out_proj"),
        *norm(f"{block}.ln_2", components.FEED_FORWARD_NORM, bias=True),
        *feed_forward(f"{block}.mlp.c_fc", f"{block}.mlp.c_proj", hidden, bias=True),
        *norm("transformer.ln_f", components.FINAL_NORM, bias=True, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        "gpt_neo",
        tensors,
        symbols,
        ties=(("lm_head.weight", "transformer.wte.weight"),) if tied else (),
        ignored=(f"{attention}.bias", f"{attention}.masked_bias"),
        attention=_attention(config, heads, symbols["L"]),
        context_length=symbols["T"],
    )


def _attention(config: Mapping[str, Any], heads: Heads, count: int) -> tuple[AttentionSpec, ...]:
    """Global layers see everything, local ones the last ``window_size`` tokens."""
    window = size(config, "window_size", 256)
    layer_types = _layer_types(config.get("attention_types"), count)
    counts = {0: layer_types.count("global"), window: layer_types.count("local")}
    return tuple(
        heads.attention(layers=as_polynomial(number), window=span)
        for span, number in counts.items()
        if number
    )


def _layer_types(groups: object, count: int) -> list[str]:
    """``[[["global", "local"], 12]]`` expanded: one name a layer."""
    expected = 'groups such as [["global", "local"], 12] that make up the layers'
    if groups is None:
        groups = [[["global", "local"], 12]]
    if not isinstance(groups, list):
        raise ConfigError("config.json: attention_types", shortened(groups), expected)
    layer_types: list[str] = []
    for group in groups:
        match group:
            case [[_, *_] as pattern, int(times)] if (
                all(name in ("global", "local") for name in pattern)
                and 1 <= times <= LARGEST_LAYER_COUNT
                and len(layer_types) + len(pattern) * times <= LARGEST_LAYER_COUNT
            ):
                layer_types += pattern * times
            case _:
                raise ConfigError("config.json: attention_types", shortened(group), expected)
    if len(layer_types) != count:
        raise ConfigError("config.json: attention_types", f"{len(layer_types)} layers", f"{count}")
    return layer_types
