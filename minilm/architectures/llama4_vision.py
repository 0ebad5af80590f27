"""Llama 4 with images: the language model of `llama4.py`, a vision tower with an adapter, and a
projection.

Pictures are used once, not once a token. Names, shapes and defaults: huggingface/transformers
`models/llama4`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import size, sub_config
from minilm.architectures.llama4 import layout as text_layout
from minilm.architectures.vision_tower import F, P, W, Y, matrix, once, vector, vision_symbols
from minilm.ledger.layout import Layout, Tensor


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Llama4ForConditionalGeneration for a config.json."""
    text = text_layout({**sub_config(config, "text_config"), "model_type": "llama4_text"})
    vision = sub_config(config, "vision_config")
    patch = size(vision, "patch_size", 14)
    outputs = size(vision, "projector_output_dim", 4096)
    symbols = vision_symbols(vision, width=768, depth=34, inner=5632, image=448, patch=14)
    tower = "vision_model"
    adapter = f"{tower}.vision_adapter.mlp"
    body = tuple(replace(each, name=f"language_model.{each.name}") for each in text.tensors)
    return replace(
        text,
        family="llama4",
        tensors=(
            *body,
            once(f"{tower}.class_embedding", (W,)),
            once(f"{tower}.positional_embedding_vlm", (P + 1, W)),
            once(
                f"{tower}.patch_embedding.linear.weight",
                (W, size(vision, "num_channels", 3) * patch**2),
            ),
            *vector(f"{tower}.layernorm_pre", W),
            *_layers(f"{tower}.model.layers.{{i}}"),
            *vector(f"{tower}.layernorm_post", W),
            once(f"{adapter}.fc1.weight", (size(vision, "projector_input_dim", 4096), F)),
            once(f"{adapter}.fc2.weight", (outputs, outputs)),
            once(
                "multi_modal_projector.linear_1.weight",
                (d, size(vision, "vision_output_dim", 7680)),
            ),
        ),
        symbols={**text.symbols, **symbols},
        ties=tuple((f"language_model.{a}", f"language_model.{b}") for a, b in text.ties),
    )


def _layers(layer: str) -> tuple[Tensor, ...]:
    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    return (
        *vector(f"{layer}.input_layernorm", W, Y),
        *(t for name in attention for t in matrix(f"{layer}.self_attn.{name}", (W, W), Y)),
        *vector(f"{layer}.post_attention_layernorm", W, Y),
        *matrix(f"{layer}.mlp.fc1", (F, W), Y),
        *matrix(f"{layer}.mlp.fc2", (W, F), Y),
    )
