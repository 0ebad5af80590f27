"""Jais: GPT-2 with ALiBi and SwiGLU, its matrices stored as (in, out); the slopes are in the file.

Names, shapes and defaults: inceptionai/jais-13b `modeling_jais.py` and `configuration_jais.py`; the order
of the matrices, vllm-project/vllm `models/jais.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import T, d, f, h
from minilm.architectures.config_fields import size, size_or_null
from minilm.architectures.decoder import Defaults, decoder, pre_norms
from minilm.architectures.gpt2 import gpt_heads, transposed
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE

_DEFAULTS = Defaults(50257, 12, (768, 12, None, None), context=1024, tied=True)
_BLOCK = "transformer.h.{i}"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of JAISLMHeadModel for a config.json."""
    heads = gpt_heads(config)
    is_gated = config.get("activation_function") == "swiglu"
    attention, mlp = f"{_BLOCK}.attn", f"{_BLOCK}.mlp"
    symbols = {"f": size_or_null(config, "n_inner", 4 * heads.symbols["d"])}
    part = components.POSITION_EMBEDDING
    if config.get("position_embedding_type") == "alibi":
        name = "transformer.relative_pe.slopes"
        positions = Tensor(name, (h, ONE), part, Role.SCALED, frozen=True)
    else:
        symbols["T"] = size(config, "n_positions", _DEFAULTS.context)
        positions = Tensor("transformer.wpe.weight", (T, d), part, Role.LOOKED_UP)
    gate = transposed(f"{mlp}.c_fc2", d, f, components.FEED_FORWARD_GATE)
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(f"{_BLOCK}.ln_1", f"{_BLOCK}.ln_2", bias=True),
        *transposed(f"{attention}.c_attn", d, 3 * d, components.ATTENTION_QUERY_KEY_VALUE),
        *transposed(f"{attention}.c_proj", d, d, components.ATTENTION_OUTPUT),
        *transposed(f"{mlp}.c_fc", d, f, components.FEED_FORWARD_UP),
        *(gate if is_gated else ()),
        *transposed(f"{mlp}.c_proj", f, d, components.FEED_FORWARD_DOWN),
        symbols=symbols,
        before=(positions,),
        table="transformer.wte",
        final_norm="transformer.ln_f",
        norm_bias=True,
        fields={"num_hidden_layers": "n_layer", "max_position_embeddings": "n_positions"},
    )
