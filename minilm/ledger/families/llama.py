"""Llama (1, 2, 3) as transformers stores it: RMSNorm, RoPE, grouped-query attention, SwiGLU.

Names, shapes and defaults: huggingface/transformers `models/llama/configuration_llama.py` and
`modeling_llama.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.families.fields import flag, layers, size
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import Polynomial, symbol

V, L, d, f, h, g, k = (symbol(letter) for letter in "VLdfhgk")


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of LlamaForCausalLM for a config.json."""
    d_model = size(config, "hidden_size", 4096)
    heads = size(config, "num_attention_heads", 32)
    kv_heads = size(config, "num_key_value_heads", heads)
    head_dim = size(config, "head_dim", max(1, d_model // heads))
    if config.get("head_dim") is None and d_model % heads:
        raise ConfigError("config.json: hidden_size", f"{d_model}", f"a multiple of {heads} heads")
    if heads % kv_heads:
        raise ConfigError(
            "config.json: num_key_value_heads", f"{kv_heads}", f"a divisor of {heads}"
        )
    attention_bias = flag(config, "attention_bias", False)
    mlp_bias = flag(config, "mlp_bias", False)
    tied = flag(config, "tie_word_embeddings", False)
    symbols = {
        "V": size(config, "vocab_size", 32000),
        "L": layers(config, "num_hidden_layers", 32),
        "d": d_model,
        "f": size(config, "intermediate_size", 11008),
        "h": heads,
        "g": kv_heads,
        "k": head_dim,
    }
    queries = d if heads * head_dim == d_model else h * k
    keys = queries if kv_heads == heads else g * k

    def linear(
        name: str, outputs: Polynomial, inputs: Polynomial, part: str, bias: bool
    ) -> tuple[Tensor, ...]:
        name = "model.layers.{i}." + name
        weight = Tensor(f"{name}.weight", (outputs, inputs), part, Role.MULTIPLIED, L)
        if not bias:
            return (weight,)
        return (weight, Tensor(f"{name}.bias", (outputs,), part, Role.ADDED, L))

    def norm(name: str, part: str) -> Tensor:
        return Tensor(f"model.layers.{{i}}.{name}.weight", (d,), part, Role.SCALED, L)

    tensors = (
        Tensor("model.embed_tokens.weight", (V, d), components.TOKEN_EMBEDDING, Role.LOOKED_UP),
        norm("input_layernorm", components.ATTENTION_NORM),
        *linear("self_attn.q_proj", queries, d, components.ATTENTION_QUERY, attention_bias),
        *linear("self_attn.k_proj", keys, d, components.ATTENTION_KEY, attention_bias),
        *linear("self_attn.v_proj", keys, d, components.ATTENTION_VALUE, attention_bias),
        *linear("self_attn.o_proj", d, queries, components.ATTENTION_OUTPUT, attention_bias),
        norm("post_attention_layernorm", components.FEED_FORWARD_NORM),
        *linear("mlp.gate_proj", f, d, components.FEED_FORWARD_GATE, mlp_bias),
        *linear("mlp.up_proj", f, d, components.FEED_FORWARD_UP, mlp_bias),
        *linear("mlp.down_proj", d, f, components.FEED_FORWARD_DOWN, mlp_bias),
        Tensor("model.norm.weight", (d,), components.FINAL_NORM, Role.SCALED),
        *(() if tied else (Tensor("lm_head.weight", (V, d), components.LM_HEAD, Role.MULTIPLIED),)),
    )
    return Layout(
        "llama",
        tensors,
        symbols,
        ties=(("lm_head.weight", "model.embed_tokens.weight"),) if tied else (),
        kv_cache_per_token=2 * L * g * k,
        attention_width=L * h * k,
    )
