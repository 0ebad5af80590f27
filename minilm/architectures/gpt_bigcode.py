"""GPT-BigCode (SantaCoder, StarCoder) as transformers stores it: GPT-2 with one key and value head.

Names, shapes and defaults: huggingface/transformers `models/gpt_bigcode/configuration_gpt_bigcode.py`
and `modeling_gpt_bigcode.py`; unlike GPT-2's, its matrices are (out, in).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    feed_forward,
    fused_attention,
    norm,
    read_heads,
)
from minilm.architectures.config_fields import field_name, flag, number, require
from minilm.architectures.conversion import Importable
from minilm.architectures.gpt2 import BLOCK, layout_around
from minilm.architectures.shared_fields import Fields, read_activation
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor
from minilm.ledger.symbols import Polynomial


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of GPTBigCodeForCausalLM for a config.json."""
    heads = _heads(config)

    def block(hidden: Polynomial) -> tuple[Tensor, ...]:
        return (
            *norm(f"{BLOCK}.ln_1", components.ATTENTION_NORM, bias=True),
            *fused_attention(f"{BLOCK}.attn.c_attn", f"{BLOCK}.attn.c_proj", heads, bias=True),
            *norm(f"{BLOCK}.ln_2", components.FEED_FORWARD_NORM, bias=True),
            *feed_forward(f"{BLOCK}.mlp.c_fc", f"{BLOCK}.mlp.c_proj", hidden, bias=True),
        )

    return layout_around("gpt_bigcode", config, heads, block)


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
