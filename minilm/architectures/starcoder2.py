"""StarCoder2 as transformers stores it: LayerNorm, RoPE, grouped heads, a window, a plain feed-forward.

Names, shapes and defaults: huggingface/transformers `models/starcoder2/configuration_starcoder2.py` and
`modeling_starcoder2.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    embedding,
    feed_forward,
    feed_forward_width,
    lm_head,
    norm,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import flag, layers, number, optional_size, size
from minilm.architectures.conversion import (
    ALL_BIASES,
    GELU_GRAPH,
    LAYERNORM,
    STANDARD_BLOCK,
    Architecture,
    GgufGraph,
    all_of,
    heads_fill_width,
    one_attention_bias,
    one_bias,
    requires,
)
from minilm.architectures.shared_fields import (
    HF_ACTIVATIONS,
    Fields,
    read_activation,
    read_rope,
    rope_fields,
    size_fields,
)
from minilm.config import ModelConfig
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Starcoder2ForCausalLM for a config.json."""
    heads = read_heads(config, defaults=(3072, 24, 2, None))
    inner = size(config, "intermediate_size", 12288)
    hidden = feed_forward_width(inner, heads.symbols["d"])
    bias = flag(config, "use_bias", True)
    tied = flag(config, "tie_word_embeddings", True)
    symbols = {
        "V": size(config, "vocab_size", 49152),
        "L": layers(config, "num_hidden_layers", 30),
        "f": inner,
        **heads.symbols,
    }
    block = "model.layers.{i}"
    tensors = (
        embedding("model.embed_tokens"),
        *norm(f"{block}.input_layernorm", components.ATTENTION_NORM, bias=True),
        *separate_attention(f"{block}.self_attn", heads, qkv_bias=bias, output_bias=bias),
        *norm(f"{block}.post_attention_layernorm", components.FEED_FORWARD_NORM, bias=True),
        *feed_forward(f"{block}.mlp.c_fc", f"{block}.mlp.c_proj", hidden, bias=bias),
        *norm("model.norm", components.FINAL_NORM, bias=True, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        "starcoder2",
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        ignored=(f"{block}.self_attn.rotary_emb.inv_freq",),
        attention=(heads.attention(window=optional_size(config, "sliding_window") or 0),),
        context_length=size(config, "max_position_embeddings", 4096),
    )


def _hf_fields(config: ModelConfig) -> dict[str, Any]:
    return {
        **size_fields(config),
        "num_key_value_heads": config.num_kv_heads,
        **rope_fields(config),
        "hidden_act": HF_ACTIVATIONS[config.feed_forward],
        "norm_epsilon": config.norm_epsilon,
        "use_bias": config.qkv_bias,
        "sliding_window": config.sliding_window or None,
        "residual_dropout": config.dropout,
        "embedding_dropout": config.dropout,
        "attention_dropout": config.dropout,
    }


def _minilm_fields(fields: Fields) -> dict[str, Any]:
    return {
        "feed_forward": read_activation(fields, "hidden_act", "gelu_pytorch_tanh"),
        "norm_epsilon": number(fields, "norm_epsilon", 1e-5),
        **read_rope(fields, "rope_theta"),
    }


ARCHITECTURES = (
    Architecture(
        model_type="starcoder2",
        class_name="Starcoder2ForCausalLM",
        layout=layout,
        unsupported_fields=all_of(
            requires(position="rope"),
            STANDARD_BLOCK,
            LAYERNORM,
            requires(qk_norm=False),
            heads_fill_width,
            one_attention_bias,
            one_bias,
        ),
        hf_fields=_hf_fields,
        minilm_fields=_minilm_fields,
        gguf=GgufGraph(GELU_GRAPH, stored_fields=ALL_BIASES),
    ),
)
