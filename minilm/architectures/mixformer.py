"""Phi 1, 1.5 and 2 of remote code: parallel blocks with one norm, every bias, a norm inside the head.

`mixformer-sequential` numbers embedding, blocks and head as one list of modules; `phi-msft` names them.
Names, shapes and defaults: microsoft/phi-2 `modeling_mixformer_sequential.py` and `modeling_phi.py` of
2023; llama.cpp `tensor_mapping.py` (phi2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    L,
    feed_forward,
    feed_forward_width,
    fused_attention,
    norm,
    read_heads,
)
from minilm.architectures.config_fields import layers, size_or_null
from minilm.architectures.decoder import Defaults, decoder
from minilm.ledger import components
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(50304, 20, (1024, 16, None, None))


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of MixFormerSequentialForCausalLM and of the early PhiForCausalLM for a config.json."""
    heads = read_heads(
        config,
        width="n_embd",
        heads="n_head",
        kv_heads="n_head_kv",
        head_dim=None,
        defaults=_DEFAULTS.heads,
    )
    width = size_or_null(config, "n_inner", 4 * heads.symbols["d"])
    num_layers = layers(config, "n_layer", _DEFAULTS.layers)
    is_list = config["model_type"] == "mixformer-sequential"
    block = "layers.{i}" if is_list else "transformer.h.{i}"
    head = f"layers.{num_layers + 1}" if is_list else "lm_head"
    layout = decoder(
        {**config, "tie_word_embeddings": False},
        _DEFAULTS,
        heads,
        *norm(f"{block}.ln", components.ATTENTION_NORM, bias=True),
        *fused_attention(f"{block}.mixer.Wqkv", f"{block}.mixer.out_proj", heads, bias=True),
        *feed_forward(
            f"{block}.mlp.fc1",
            f"{block}.mlp.fc2",
            feed_forward_width(width, heads.symbols["d"]),
            bias=True,
        ),
        symbols={"f": width},
        table="layers.0.wte" if is_list else "transformer.embd.wte",
        final_norm=f"{head}.ln",
        norm_bias=True,
        head=f"{head}.linear",
        head_bias=True,
        fields={"num_hidden_layers": "n_layer", "max_position_embeddings": "n_positions"},
    )
    if not is_list:
        return replace(layout, ignored=(f"{block}.mixer.rotary_emb.inv_freq",))
    numbers = range(1, num_layers + 1)
    tensors = [
        replace(each, layers=numbers) if each.repeat == L else each for each in layout.tensors
    ]
    return replace(layout, tensors=tuple(tensors))
