"""Llama (1, 2, 3) as transformers stores it: RMSNorm, RoPE, grouped-query attention, SwiGLU.

Names, shapes and defaults: huggingface/transformers `models/llama/configuration_llama.py` and
`modeling_llama.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    gated_feed_forward,
    separate_attention,
)
from minilm.architectures.config_fields import flag, require
from minilm.architectures.conversion import (
    LLAMA_GRAPH,
    RMSNORM,
    STANDARD_BLOCK,
    Architecture,
    GgufGraph,
    all_of,
    one_attention_bias,
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
from minilm.architectures.shared_fields import Fields, gated_fields, read_gated
from minilm.config import ModelConfig
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(32000, 32, (4096, 32, None, None), 11008)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of LlamaForCausalLM for a config.json."""
    heads, _ = heads_and_layers(config, _DEFAULTS)
    bias = flag(config, "attention_bias", False)
    first, second = pre_norms()
    result = decoder(
        config,
        _DEFAULTS,
        heads,
        first,
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        second,
        *gated_feed_forward(MLP, bias=flag(config, "mlp_bias", False)),
    )
    return replace(result, ignored=(f"{ATTENTION}.rotary_emb.inv_freq",))


def _hf_fields(config: ModelConfig) -> dict[str, Any]:
    return gated_fields(config) | {
        "attention_bias": config.qkv_bias,
        "mlp_bias": config.feed_forward_bias,
    }


def _minilm_fields(fields: Fields) -> dict[str, Any]:
    require(fields, "pretraining_tp", 1)
    return read_gated(fields)


ARCHITECTURES = (
    Architecture(
        model_type="llama",
        class_name="LlamaForCausalLM",
        layout=layout,
        unsupported_fields=all_of(
            RMSNORM, STANDARD_BLOCK, requires(sliding_window=0, qk_norm=False), one_attention_bias
        ),
        hf_fields=_hf_fields,
        minilm_fields=_minilm_fields,
        gguf=GgufGraph(LLAMA_GRAPH, adjacent_rotary=True),
        zero_biases=("qkv_bias", "attention_output_bias"),
    ),
)
