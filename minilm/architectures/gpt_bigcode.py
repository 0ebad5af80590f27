"""GPT-BigCode (SantaCoder, StarCoder) as transformers stores it: GPT-2 with one key and value head.

Names, shapes and defaults: huggingface/transformers `models/gpt_bigcode/configuration_gpt_bigcode.py`
and `modeling_gpt_bigcode.py`; unlike GPT-2's, its matrices are (out, in).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    T,
    d,
    embedding,
    feed_forward,
    feed_forward_width,
    linear,
    lm_head,
    norm,
    read_heads,
)
from minilm.architectures.config_fields import field_name, flag, layers, number, require, size
from minilm.architectures.conversion import Importable
from minilm.architectures.shared_fields import Fields, read_activation
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of GPTBigCodeForCausalLM for a config.json."""
    heads = _heads(config)
    inner = size(config, "n_inner", 4 * heads.symbols["d"])
    tied = flag(config, "tie_word_embeddings", True)
    symbols = {
        "V": size(config, "vocab_size", 50257),
        "T": size(config, field_name(config, "n_positions", "max_position_embeddings"), 1024),
        "L": layers(config, field_name(config, "n_layer", "num_hidden_layers"), 12),
        "f": inner,
        **heads.symbols,
    }
    block = "transformer.h.{i}"
    fused = heads.queries + 2 * heads.keys
    part = components.ATTENTION_QUERY_KEY_VALUE
    hidden = feed_forward_width(inner, heads.symbols["d"])
    tensors = (
        embedding("transformer.wte"),
        Tensor("transformer.wpe.weight", (T, d), components.POSITION_EMBEDDING, Role.LOOKED_UP),
        *norm(f"{block}.ln_1", components.ATTENTION_NORM, bias=True),
        *linear(f"{block}.attn.c_attn", fused, d, part, bias=True),
        *linear(f"{block}.attn.c_proj", d, d, components.ATTENTION_OUTPUT, bias=True),
        *norm(f"{block}.ln_2", components.FEED_FORWARD_NORM, bias=True),
        *feed_forward(f"{block}.mlp.c_fc", f"{block}.mlp.c_proj", hidden, bias=True),
        *norm("transformer.ln_f", components.FINAL_NORM, bias=True, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        "gpt_bigcode",
        tensors,
        symbols,
        ties=(("lm_head.weight", "transformer.wte.weight"),) if tied else (),
        optional_prefix="transformer.",
        ignored=(f"{block}.attn.bias", f"{block}.attn.masked_bias"),
        attention=(heads.attention(),),
        context_length=symbols["T"],
    )


def _heads(config: Mapping[str, Any]) -> Heads:
    """All query heads share a key and a value, unless ``multi_query`` is off."""
    shared = {"kv_heads": 1} if flag(config, "multi_query", True) else {}
    return read_heads(
        {**config, **shared},
        width=field_name(config, "n_embd", "hidden_size"),
        heads=field_name(config, "n_head", "num_attention_heads"),
        kv_heads="kv_heads",
        head_dim=None,
        defaults=(768, 12, None, None),
    )


def _minilm_fields(fields: Fields) -> dict[str, Any]:
    require(fields, "multi_query", True)
    require(fields, "scale_attn_weights", True)
    return {
        "feed_forward": read_activation(fields, "activation_function", "gelu_pytorch_tanh"),
        "norm_epsilon": number(fields, "layer_norm_epsilon", 1e-5),
    }


IMPORTABLE = (Importable("gpt_bigcode", layout, _minilm_fields),)
