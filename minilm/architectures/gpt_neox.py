"""GPT-NeoX and Pythia as transformers stores them: fused query-key-value, RoPE, an untied head.

Names, shapes and defaults: huggingface/transformers `models/gpt_neox/configuration_gpt_neox.py` and
`modeling_gpt_neox.py`. In files the head is called `embed_out`, whatever a module calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    embedding,
    equal_heads,
    feed_forward,
    feed_forward_width,
    fused_attention,
    lm_head,
    norm,
)
from minilm.architectures.config_fields import flag, layers, number, size
from minilm.architectures.conversion import (
    ALL_BIASES,
    GELU_GRAPH,
    LAYERNORM,
    NO_EXTRAS,
    Architecture,
    GgufGraph,
    all_of,
    heads_fill_width,
    one_attention_bias,
    requires,
    ungrouped_heads,
)
from minilm.architectures.shared_fields import (
    HF_ACTIVATIONS,
    Fields,
    read_activation,
    read_rope,
    read_rope_parameters,
    rope_fields,
    rope_parameters,
    size_fields,
)
from minilm.config import ModelConfig
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of GPTNeoXForCausalLM for a config.json."""
    heads = equal_heads(config, (6144, 64, None, None))
    inner = size(config, "intermediate_size", 24576)
    bias = flag(config, "attention_bias", True)
    tied = flag(config, "tie_word_embeddings", False)
    symbols = {
        "V": size(config, "vocab_size", 50432),
        "L": layers(config, "num_hidden_layers", 44),
        "f": inner,
        **heads.symbols,
    }
    block = "gpt_neox.layers.{i}"
    attention = f"{block}.attention"
    tensors = (
        embedding("gpt_neox.embed_in"),
        *norm(f"{block}.input_layernorm", components.ATTENTION_NORM, bias=True),
        *fused_attention(f"{attention}.query_key_value", f"{attention}.dense", heads, bias=bias),
        *norm(f"{block}.post_attention_layernorm", components.FEED_FORWARD_NORM, bias=True),
        *feed_forward(
            f"{block}.mlp.dense_h_to_4h",
            f"{block}.mlp.dense_4h_to_h",
            feed_forward_width(inner, heads.symbols["d"]),
            bias=True,
        ),
        *norm("gpt_neox.final_layer_norm", components.FINAL_NORM, bias=True, repeat=ONE),
        *lm_head("embed_out", tied=tied),
    )
    return Layout(
        "gpt_neox",
        tensors,
        symbols,
        ties=(("embed_out.weight", "gpt_neox.embed_in.weight"),) if tied else (),
        ignored=(
            f"{attention}.bias",
            f"{attention}.masked_bias",
            f"{attention}.rotary_emb.inv_freq",
        ),
        attention=(heads.attention(),),
        context_length=size(config, "max_position_embeddings", 2048),
    )


def _hf_fields(config: ModelConfig) -> dict[str, Any]:
    rotary_share = config.rotary_dim / config.head_dim
    return size_fields(config) | {
        "rotary_pct": rotary_share,
        "rotary_emb_base": config.rope_theta,
        "rope_scaling": rope_fields(config)["rope_scaling"],
        "rope_parameters": rope_parameters(config) | {"partial_rotary_factor": rotary_share},
        "use_parallel_residual": config.parallel_residual,
        "hidden_act": HF_ACTIVATIONS[config.feed_forward],
        "layer_norm_eps": config.norm_epsilon,
        "attention_bias": config.qkv_bias,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.dropout,
    }


def _minilm_fields(fields: Fields) -> dict[str, Any]:
    if fields.get("rotary_pct") is not None:
        rotary_share = number(fields, "rotary_pct", 0.25)
    else:
        rotary_share = number(read_rope_parameters(fields), "partial_rotary_factor", 0.25)
    return {
        "rotary_dim": int(layout(fields).symbols["k"] * rotary_share),
        "parallel_residual": flag(fields, "use_parallel_residual", True),
        "feed_forward": read_activation(fields, "hidden_act", "gelu"),
        "norm_epsilon": number(fields, "layer_norm_eps", 1e-5),
        **read_rope(fields, "rotary_emb_base"),
    }


ARCHITECTURES = (
    Architecture(
        model_type="gpt_neox",
        class_name="GPTNeoXForCausalLM",
        layout=layout,
        unsupported_fields=all_of(
            requires(position="rope"),
            NO_EXTRAS,
            LAYERNORM,
            requires(sliding_window=0, qk_norm=False, feed_forward_bias=True),
            ungrouped_heads,
            heads_fill_width,
            one_attention_bias,
        ),
        hf_fields=_hf_fields,
        minilm_fields=_minilm_fields,
        gguf=GgufGraph(
            GELU_GRAPH,
            stored_fields=ALL_BIASES | {"tied_embeddings": False},
            parallel_residual=True,
        ),
        fused_qkv="by_head",
    ),
)
