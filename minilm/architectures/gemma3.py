"""Gemma 3 with images: the text model of `gemma.py`, a SigLIP vision tower, and a projection between them.

The tower's matrices are used once an image, not once a token. Names, shapes and defaults:
huggingface/transformers `models/{gemma3,siglip}`; its version 5 writes the tower without
`vision_model.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import flag, layers, size, sub_config
from minilm.architectures.gemma import layout as text_layout
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

W, Y, F, P = (symbol(letter) for letter in "WYFP")  # vision: width, layers, feed-forward, patches


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Gemma3ForConditionalGeneration for a config.json."""
    vision = sub_config(config, "vision_config")
    text = text_layout({**sub_config(config, "text_config"), "model_type": "gemma3_text"})
    patch = size(vision, "patch_size", 14)
    symbols = {
        "W": size(vision, "hidden_size", 1152),
        "Y": layers(vision, "num_hidden_layers", 27),
        "F": size(vision, "intermediate_size", 4304),
        "P": max(1, size(vision, "image_size", 896) // patch) ** 2,
    }
    body = tuple(replace(t, name=f"language_model.{t.name}") for t in text.tensors)
    is_version_5 = str(config.get("transformers_version")).startswith("5.")
    tower = "vision_tower" if is_version_5 else "vision_tower.vision_model"
    channels = size(vision, "num_channels", 3)
    tensors = (
        *body,
        *_matrix(f"{tower}.embeddings.patch_embedding", (W, channels, patch, patch)),
        _once(f"{tower}.embeddings.position_embedding.weight", (P, W)),
        *_layers(f"{tower}.encoder.layers.{{i}}"),
        *_norm(f"{tower}.post_layernorm"),
        *(_pooling_head(f"{tower}.head") if flag(vision, "vision_use_head", True) else ()),
        _once("multi_modal_projector.mm_input_projection_weight", (W, d)),
        _once("multi_modal_projector.mm_soft_emb_norm.weight", (W,)),
    )
    return replace(
        text,
        family="gemma3",
        tensors=tensors,
        symbols={**text.symbols, **symbols},
        ties=tuple((head, f"language_model.{table}") for head, table in text.ties),
    )


def _layers(layer: str) -> tuple[Tensor, ...]:
    attention = ("q_proj", "k_proj", "v_proj", "out_proj")
    return (
        *_norm(f"{layer}.layer_norm1", Y),
        *(t for name in attention for t in _matrix(f"{layer}.self_attn.{name}", (W, W), Y)),
        *_norm(f"{layer}.layer_norm2", Y),
        *_matrix(f"{layer}.mlp.fc1", (F, W), Y),
        *_matrix(f"{layer}.mlp.fc2", (W, F), Y),
    )


def _pooling_head(head: str) -> tuple[Tensor, ...]:
    """SigLIP's attention pooling, which Gemma does not use and its configuration may keep."""
    return (
        _once(f"{head}.probe", (1, 1, W)),
        _once(f"{head}.attention.in_proj_weight", (3 * W, W)),
        _once(f"{head}.attention.in_proj_bias", (3 * W,), Role.ADDED),
        *_matrix(f"{head}.attention.out_proj", (W, W)),
        *_norm(f"{head}.layernorm"),
        *_matrix(f"{head}.mlp.fc1", (F, W)),
        *_matrix(f"{head}.mlp.fc2", (W, F)),
    )


def _matrix(
    name: str, shape: tuple[Polynomial | int, ...], repeat: Polynomial = ONE
) -> tuple[Tensor, ...]:
    bias = _once(f"{name}.bias", shape[:1], Role.ADDED, repeat)
    return (_once(f"{name}.weight", shape, repeat=repeat), bias)


def _norm(name: str, repeat: Polynomial = ONE) -> tuple[Tensor, ...]:
    return _matrix(name, (W,), repeat)


def _once(
    name: str,
    shape: tuple[Polynomial | int, ...],
    role: Role = Role.ONCE,
    repeat: Polynomial = ONE,
) -> Tensor:
    return Tensor(name, tuple(map(as_polynomial, shape)), components.VISION, role, repeat)
