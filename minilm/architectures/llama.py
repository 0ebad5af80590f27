"""Llama (1, 2, 3) as transformers stores it: RMSNorm, RoPE, grouped-query attention, SwiGLU.

Names, shapes and defaults: huggingface/transformers `models/llama/configuration_llama.py` and
`modeling_llama.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    embedding,
    gated_feed_forward,
    lm_head,
    norm,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import flag, layers, require, size
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
from minilm.architectures.shared_fields import Fields, gated_fields, read_gated
from minilm.config import ModelConfig
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of LlamaForCausalLM for a config.json."""
    heads = read_heads(config, defaults=(4096, 32, None, None))
    bias = flag(config, "attention_bias", False)
    tied = flag(config, "tie_word_embeddings", False)
    symbols = {
        "V": size(config, "vocab_size", 32000),
        "L": layers(config, "num_hidden_layers", 32),
        "f": size(config, "intermediate_size", 11008),
        **heads.symbols,
    }
    block = "model.layers.{i}"
    tensors = (
        embedding("model.embed_tokens"),
        *norm(f"{block}.input_layernorm", components.ATTENTION_NORM),
        *separate_attention(f"{block}.self_attn", heads, qkv_bias=bias, output_bias=bias),
        *norm(f"{block}.post_attention_layernorm", components.FEED_FORWARD_NORM),
        *gated_feed_forward(f"{block}.mlp", bias=flag(config, "mlp_bias", False)),
        *norm("model.norm", components.FINAL_NORM, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        "llama",
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        ignored=(f"{block}.self_attn.rotary_emb.inv_freq",),
        attention=(heads.attention(),),
        context_length=size(config, "max_position_embeddings", 2048),
    )


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
