"""SmolLM3 as transformers stores it: Llama's tensors; every fourth layer has no RoPE and may slide.

Names, shapes and defaults: huggingface/transformers `models/smollm3/configuration_smollm3.py` and
`modeling_smollm3.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    attention_kinds,
    gated_feed_forward,
    separate_attention,
    sliding_layers,
    window_size,
)
from minilm.architectures.config_fields import flag, layers, size
from minilm.architectures.conversion import Importable
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.shared_fields import Fields, read_gated
from minilm.errors import ConfigError
from minilm.ledger.layout import AttentionSpec, Layout

_DEFAULTS = Defaults(128256, 36, (2048, 16, 4, None), 11008, 32768, tied=True)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of SmolLM3ForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    bias = flag(config, "attention_bias", False)
    first, second = pre_norms()
    return decoder(
        config,
        _DEFAULTS,
        heads,
        first,
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        second,
        *gated_feed_forward(MLP, bias=flag(config, "mlp_bias", False)),
        attention=_attention_kinds(config, heads, num_layers),
    )


def _attention_kinds(
    config: Mapping[str, Any], heads: Heads, num_layers: int
) -> tuple[AttentionSpec, ...]:
    if not flag(config, "use_sliding_window", False):
        return (heads.attention(),)
    sliding = sliding_layers(config, num_layers, _without_rope(config, num_layers))
    return attention_kinds(heads, num_layers, sliding, window_size(config, 0))


def _without_rope(config: Mapping[str, Any], num_layers: int) -> Callable[[int], bool]:
    """Whether layer i has no RoPE: 0 in ``no_rope_layers``, or every ``no_rope_layer_interval``-th."""
    listed = config.get("no_rope_layers")
    if listed is None:
        interval = size(config, "no_rope_layer_interval", 4)
        return lambda i: (i + 1) % interval == 0
    if not isinstance(listed, list) or len(listed) < num_layers:
        raise ConfigError(
            "config.json: no_rope_layers", shortened(listed), f"{num_layers} times 0 or 1"
        )
    return lambda i: not listed[i]


def _minilm_fields(fields: Fields) -> dict[str, Any]:
    num_layers = layers(fields, "num_hidden_layers", 36)
    if any(map(_without_rope(fields, num_layers), range(num_layers))):
        got = "layers without RoPE"
        raise ConfigError("config.json: no_rope_layers", got, "RoPE in all of them")
    return read_gated({"rope_theta": 2000000.0, **fields})


IMPORTABLE = (Importable("smollm3", layout, _minilm_fields),)
