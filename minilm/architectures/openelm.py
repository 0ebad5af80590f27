"""OpenELM: heads and feed-forward widths that differ a layer, queries, keys and values fused, a tied head.

Names, shapes and defaults: apple/OpenELM-270M `modeling_openelm.py` and `configuration_openelm.py`, whose
config.json lists both for every layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import Heads, d, k, linear
from minilm.architectures.config_fields import flag, layers, number, size
from minilm.architectures.decoder import Defaults, decoder, pre_norms, query_key_norms
from minilm.architectures.moe import LayerGroup, groups_by_value
from minilm.config.validation import LARGEST_DIMENSION
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Tensor
from minilm.ledger.symbols import as_polynomial

_DEFAULTS = Defaults(32000, 12, (2048, 16, 16, 128))
_BLOCK = "transformer.layers.{i}"
_HEADS = ("num_query_heads", "num_kv_heads")


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of OpenELMForCausalLM for a config.json."""
    num_layers = layers(config, "num_transformer_layers", _DEFAULTS.layers)
    symbols = {"d": size(config, "model_dim", 2048), "k": size(config, "head_dim", 128)}
    most = max(1, symbols["d"] // symbols["k"])
    queries, keys = (
        [size({name: each}, name) for each in _listed(config, name, num_layers, most)]
        for name in _HEADS
    )
    heads = groups_by_value(list(zip(queries, keys, strict=True)))
    widths = groups_by_value(_widths(config, num_layers, symbols["d"]))
    is_gated = flag(config, "ffn_with_glu", True)
    norms = query_key_norms(f"{_BLOCK}.attn.q_norm", f"{_BLOCK}.attn.k_norm")
    table = "transformer.token_embeddings"
    tied = flag(config, "share_input_output_layers", False)
    return decoder(
        {**config, "tie_word_embeddings": tied},
        _DEFAULTS,
        Heads(symbols, d, d),
        *pre_norms(f"{_BLOCK}.attn_norm", f"{_BLOCK}.ffn_norm"),
        *(each for (own, of), at in heads.items() for each in _attention(own, of, at)),
        *(norms if flag(config, "normalize_qk_projections", False) else ()),
        *(each for width, at in widths.items() for each in _feed_forward(width, at, is_gated)),
        attention=[
            AttentionSpec(at.repeat, 2 * of * k, own * k, own * k)
            for (own, of), at in heads.items()
        ],
        table=table,
        final_norm="transformer.norm",
        fields={
            "num_hidden_layers": "num_transformer_layers",
            "max_position_embeddings": "max_context_length",
        },
    )


def _listed(config: Mapping[str, Any], name: str, num_layers: int, default: float) -> list[Any]:
    """A value for every layer, where the field has one for all or a list."""
    value = default if config.get(name) is None else config[name]
    if not isinstance(value, list):
        return [value] * num_layers
    if len(value) != num_layers:
        raise ConfigError(f"config.json: {name}", shortened(value), f"{num_layers} numbers")
    return value


def _widths(config: Mapping[str, Any], num_layers: int, d_model: int) -> list[int]:
    """Multiples of a divisor that are near the model's width times each layer's factor."""
    name, divisor = "ffn_multipliers", size(config, "ffn_dim_divisor", 256)
    widths = []
    for factor in _listed(config, name, num_layers, 4.0):
        wanted = number({name: factor}, name, 4.0) * d_model
        if not abs(wanted) <= LARGEST_DIMENSION:
            raise ConfigError(f"config.json: {name}", shortened(factor), "smaller factors")
        width = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
        widths.append(size({name: width + divisor if width < 0.9 * wanted else width}, name))
    return widths


def _attention(heads: int, kv_heads: int, at: LayerGroup) -> tuple[Tensor, ...]:
    qkv, out, where = f"{_BLOCK}.attn.qkv_proj", f"{_BLOCK}.attn.out_proj", vars(at)
    width = (heads + 2 * kv_heads) * k
    return (
        *linear(qkv, width, d, components.ATTENTION_QUERY_KEY_VALUE, **where),
        *linear(out, d, heads * k, components.ATTENTION_OUTPUT, **where),
    )


def _feed_forward(width: int, at: LayerGroup, is_gated: bool) -> tuple[Tensor, ...]:
    up = components.FEED_FORWARD_GATE_UP if is_gated else components.FEED_FORWARD_UP
    inner, where = as_polynomial(width), vars(at)
    return (
        *linear(f"{_BLOCK}.ffn.proj_1", (1 + is_gated) * inner, d, up, **where),
        *linear(f"{_BLOCK}.ffn.proj_2", d, inner, components.FEED_FORWARD_DOWN, **where),
    )
