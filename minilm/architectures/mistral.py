"""Mistral as transformers stores it: Llama's tensors, grouped heads, a sliding window in every layer.

Names, shapes and defaults: huggingface/transformers `models/mistral/configuration_mistral.py` and
`modeling_mistral.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    attention_kinds,
    gated_feed_forward,
    separate_attention,
    window_size,
)
from minilm.architectures.conversion import (
    LLAMA_GRAPH,
    RMSNORM,
    STANDARD_BLOCK,
    Architecture,
    GgufGraph,
    all_of,
    requires,
)
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.shared_fields import gated_fields, read_gated
from minilm.config import ModelConfig
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(32000, 32, (4096, 32, 8, None), 14336, 131072, window=4096)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of MistralForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    window = window_size(config, _DEFAULTS.window)
    first, second = pre_norms()
    result = decoder(
        config,
        _DEFAULTS,
        heads,
        first,
        *separate_attention(ATTENTION, heads),
        second,
        *gated_feed_forward(MLP),
        attention=attention_kinds(heads, num_layers, num_layers, window),
    )
    return replace(result, ignored=(f"{ATTENTION}.rotary_emb.inv_freq",))


def _hf_fields(config: ModelConfig) -> dict[str, Any]:
    return gated_fields(config) | {"sliding_window": config.sliding_window or None}


ARCHITECTURES = (
    Architecture(
        model_type="mistral",
        class_name="MistralForCausalLM",
        layout=layout,
        unsupported_fields=all_of(
            RMSNORM,
            STANDARD_BLOCK,
            requires(qk_norm=False),
            requires(qkv_bias=False, attention_output_bias=False, feed_forward_bias=False),
        ),
        hf_fields=_hf_fields,
        minilm_fields=read_gated,
        gguf=GgufGraph(LLAMA_GRAPH, adjacent_rotary=True),
    ),
)
