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
from minilm.architectures.config_fields import flag, size, sub_config
from minilm.architectures.gemma import layout as text_layout
from minilm.architectures.joint_text import is_tied_as_a_whole
from minilm.architectures.vision_tower import W, once, siglip_tower, vision_symbols
from minilm.ledger.layout import Layout

_SIGLIP = {  # what transformers takes where config.json does not say
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "intermediate_size": 3072,
    "image_size": 224,
    "patch_size": 16,
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Gemma3ForConditionalGeneration for a config.json."""
    vision = {**_SIGLIP, **sub_config(config, "vision_config")}
    fields = {**sub_config(config, "text_config"), "model_type": "gemma3_text"}
    text = text_layout({**fields, "tie_word_embeddings": is_tied_as_a_whole(config, True)})
    patch = size(vision, "patch_size")
    symbols = vision_symbols(vision, width=768, depth=12, inner=3072, image=224, patch=16)
    body = tuple(replace(t, name=f"language_model.{t.name}") for t in text.tensors)
    is_version_5 = str(config.get("transformers_version")).startswith("5.")
    tower = "vision_tower" if is_version_5 else "vision_tower.vision_model"
    tensors = (
        *body,
        *siglip_tower(
            tower,
            channels=size(vision, "num_channels", 3),
            patch=patch,
            has_pooling_head=flag(vision, "vision_use_head", True),
        ),
        once("multi_modal_projector.mm_input_projection_weight", (W, d)),
        once("multi_modal_projector.mm_soft_emb_norm.weight", (W,)),
    )
    return replace(
        text,
        family="gemma3",
        tensors=tensors,
        symbols={**text.symbols, **symbols},
        ties=tuple((head, f"language_model.{table}") for head, table in text.ties),
    )
