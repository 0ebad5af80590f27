"""gpt-oss as transformers stores it: experts fused in one tensor, biases everywhere, attention sinks.

Names, shapes and defaults: huggingface/transformers `models/gpt_oss/configuration_gpt_oss.py` and
`modeling_gpt_oss.py`. The expert matrices are (in, out); the published files hold them packed in MXFP4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    E,
    L,
    attention_kinds,
    d,
    embedding,
    h,
    linear,
    lm_head,
    m,
    norm,
    read_heads,
    separate_attention,
    sliding_layers,
    window_size,
)
from minilm.architectures.config_fields import field_name, flag, layers, size
from minilm.architectures.moe import read_experts
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of GptOssForCausalLM for a config.json."""
    heads = read_heads(config, defaults=(2880, 64, 8, 64))
    num_layers = layers(config, "num_hidden_layers", 36)
    tied = flag(config, "tie_word_embeddings", False)
    experts = read_experts(
        config,
        layers=num_layers,
        total=field_name(config, "num_local_experts", "num_experts"),
        width="intermediate_size",
        defaults=(128, 4, 2880),
    )
    symbols = {
        "V": size(config, "vocab_size", 201088),
        "L": num_layers,
        **heads.symbols,
        **experts,
    }
    block = "model.layers.{i}"
    bias = flag(config, "attention_bias", True)
    tensors = (
        embedding("model.embed_tokens"),
        *norm(f"{block}.input_layernorm", components.ATTENTION_NORM),
        *separate_attention(f"{block}.self_attn", heads, qkv_bias=bias, output_bias=bias),
        # A score for looking at nothing, one a head; the files do not call it a bias.
        Tensor(f"{block}.self_attn.sinks", (h,), components.ATTENTION_SINKS, Role.SCALED, L),
        *norm(f"{block}.post_attention_layernorm", components.FEED_FORWARD_NORM),
        *linear(f"{block}.mlp.router", E, d, components.ROUTER, bias=True),
        *_experts(f"{block}.mlp.experts.gate_up_proj", d, 2 * m, components.EXPERTS_GATE_UP),
        *_experts(f"{block}.mlp.experts.down_proj", m, d, components.EXPERTS_DOWN),
        *norm("model.norm", components.FINAL_NORM, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    sliding = sliding_layers(config, num_layers, lambda i: i % 2 == 0)
    return Layout(
        "gpt_oss",
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        attention=attention_kinds(heads, num_layers, sliding, window_size(config, 128)),
        context_length=size(config, "max_position_embeddings", 131072),
    )


def _experts(
    name: str, inputs: Polynomial, outputs: Polynomial, component: str
) -> tuple[Tensor, ...]:
    """One matrix and one bias of every expert, stacked."""
    return (
        Tensor(name, (E, inputs, outputs), component, Role.MULTIPLIED, L, routed=True),
        Tensor(f"{name}_bias", (E, outputs), component, Role.ADDED, L, routed=True),
    )
