"""DeciLM and Nemotron of architecture search: key/value heads and feed-forward widths that differ a layer.

In Nemotron's `block_configs` a layer may have no attention, no feed-forward, or one matrix in its place.
Names, shapes and defaults: nvidia/Llama-3_1-Nemotron-51B-Instruct `modeling_decilm.py` and
`block_config.py`, Deci/DeciLM-7B `modeling_decilm.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any, NamedTuple

from minilm.architectures.building_blocks import (
    Heads,
    d,
    equal_heads,
    gated_feed_forward,
    k,
    linear,
    norm,
    separate_attention,
)
from minilm.architectures.config_fields import flag, layers, scaled_size, size, sub_config
from minilm.architectures.decoder import ATTENTION, BLOCK, MLP, Defaults, decoder
from minilm.architectures.moe import LayerGroup, group_of, groups_by_value
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor
from minilm.ledger.symbols import as_polynomial

_DECI = Defaults(32000, 32, (4096, 32, 32, None), 14336, 4096)
_NEMOTRON = Defaults(128256, 80, (8192, 64, None, None), context=131072)
_KV_HEADS = "num_key_value_heads_per_layer"


class _Layer(NamedTuple):
    """The key/value heads and the feed-forward's width of a layer: None for nothing, 0 for one matrix."""

    kv_heads: int | None
    width: int | None


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of DeciLMForCausalLM for a config.json."""
    is_deci = config["model_type"] == "deci"
    defaults = _DECI if is_deci else _NEMOTRON
    num_layers = layers(config, "num_hidden_layers", defaults.layers)
    heads = equal_heads(config, defaults.heads)
    num_heads = heads.symbols["h"]
    each = _of_lists(config, num_layers) if is_deci else _of_blocks(config, num_layers, heads)
    for layer in each:
        if layer.kv_heads and num_heads % layer.kv_heads:
            raise ConfigError(
                f"config.json: {_KV_HEADS}", f"{layer.kv_heads}", f"divisors of {num_heads}"
            )
    attends = group_of(
        [i for i, layer in enumerate(each) if layer.kv_heads is not None], num_layers
    )
    feeds = group_of([i for i, layer in enumerate(each) if layer.width is not None], num_layers)
    kinds = groups_by_value([layer.kv_heads for layer in each])
    widths = groups_by_value([layer.width for layer in each])
    bias, mlp_bias = flag(config, "attention_bias", False), flag(config, "mlp_bias", False)
    own = {
        number: heads._replace(keys=heads.queries if number == num_heads else number * k)
        for number in kinds
        if number
    }
    return decoder(
        config,
        defaults,
        Heads({name: heads.symbols[name] for name in "dhk"}, heads.queries, heads.queries),
        *_norm("input_layernorm", components.ATTENTION_NORM, attends),
        *(
            t
            for number, at in kinds.items()
            for t in _attention(own.get(number or 0), number, at, bias)
        ),
        *_norm("post_attention_layernorm", components.FEED_FORWARD_NORM, feeds),
        *(t for width, at in widths.items() for t in _feed_forward(width, at, mlp_bias)),
        attention=[own[n].attention(layers=at.repeat) for n, at in kinds.items() if n],
    )


def _of_lists(config: Mapping[str, Any], num_layers: int) -> list[_Layer]:
    listed = config.get(_KV_HEADS)
    if listed is None:
        listed = [size(config, "num_key_value_heads", _DECI.heads[2])] * num_layers
    if not isinstance(listed, list) or len(listed) != num_layers:
        raise ConfigError(f"config.json: {_KV_HEADS}", shortened(listed), f"{num_layers} numbers")
    width = size(config, "intermediate_size", _DECI.feed_forward)
    return [_Layer(size({_KV_HEADS: number}, _KV_HEADS), width) for number in listed]


def _of_blocks(config: Mapping[str, Any], num_layers: int, heads: Heads) -> list[_Layer]:
    name = "block_configs"
    listed: Any = [{}] * num_layers if config.get(name) is None else config[name]
    if not isinstance(listed, list) or len(listed) != num_layers:
        raise ConfigError(f"config.json: {name}", shortened(listed), f"{num_layers} objects")
    blocks = [sub_config({name: block}, name) for block in listed]
    return [
        _Layer(
            _kv_heads(sub_config(block, "attention"), heads.symbols["h"]),
            _width(sub_config(block, "ffn"), heads.symbols["d"]),
        )
        for block in blocks
    ]


def _kv_heads(part: Mapping[str, Any], num_heads: int) -> int | None:
    if flag(part, "no_op", False):
        return None
    if flag(part, "replace_with_linear", False):
        return 0
    return max(1, num_heads // size(part, "n_heads_in_group", 8))


def _width(part: Mapping[str, Any], d_model: int) -> int | None:
    if flag(part, "no_op", False):
        return None
    if flag(part, "replace_with_linear", False):
        return 0
    width = scaled_size(part, "ffn_mult", 5.25, 2 * d_model / 3)
    return -(-width // 256) * 256


def _norm(name: str, component: str, at: LayerGroup | None) -> tuple[Tensor, ...]:
    return norm(f"{BLOCK}.{name}", component, **vars(at)) if at else ()


def _attention(
    heads: Heads | None, number: int | None, at: LayerGroup, bias: bool
) -> tuple[Tensor, ...]:
    if number is None:
        return ()
    if heads is None:
        return linear(f"{ATTENTION}.linear_attn", d, d, components.ATTENTION_OUTPUT, **vars(at))
    return separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias, **vars(at))


def _feed_forward(width: int | None, at: LayerGroup, bias: bool) -> tuple[Tensor, ...]:
    if width is None:
        return ()
    if width == 0:
        return linear(f"{MLP}.linear_mlp", d, d, components.FEED_FORWARD_DOWN, **vars(at))
    return gated_feed_forward(MLP, width=as_polynomial(width), bias=bias, **vars(at))
