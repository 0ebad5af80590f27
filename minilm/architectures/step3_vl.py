"""Step-3 whole: the language model of `step3.py`, a tower after CLIP, and convolutions to fewer places.

Names, shapes and defaults: vllm-project/vllm `models/step3_vl.py` and `configs/step3_vl.py`.
"""

from __future__ import annotations

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, flag, size, sub_config
from minilm.architectures.joint_text import joined
from minilm.architectures.step3 import layout as text_layout
from minilm.architectures.vision_tower import (
    F,
    P,
    Part,
    W,
    Y,
    matrix,
    once,
    projector,
    vector,
    vision_symbols,
)
from minilm.ledger.layout import Layout, Tensors

_NAME = "vision_model"


def layout(config: Config) -> Layout:
    """The tensors of Step3VLForConditionalGeneration for a config.json."""
    text = text_layout({**sub_config(config, "text_config"), "model_type": "step3_text"})
    vision = sub_config(config, "vision_config")
    symbols = vision_symbols(vision, width=1792, depth=63, inner=3072, image=728, patch=14)
    seen = size(vision, "output_hidden_size", 4096)
    between = (
        *matrix("vit_downsampler", (seen, W, 2, 2)),
        *matrix("vit_downsampler2", (2 * seen, seen, 3, 3)),
        *matrix("vit_large_projector", (d, 2 * seen), bias=flag(config, "projector_bias", True)),
    )
    return joined(text, "step3_vl", Part(_tower(vision), symbols), Part(projector(between)))


def _tower(config: Config) -> Tensors:
    block, patch = f"{_NAME}.transformer.layers.{{i}}", size(config, "patch_size", 14)
    channels = size(config, "num_channels", 3)
    return (
        once(f"{_NAME}.embeddings.class_embedding", (1, W)),
        *matrix(f"{_NAME}.embeddings.patch_embedding", (W, channels, patch, patch)),
        once(f"{_NAME}.embeddings.position_embedding.weight", (P + 1, W)),
        *matrix(f"{block}.self_attn.qkv_proj", (3 * W, W), Y),
        *matrix(f"{block}.self_attn.out_proj", (W, W), Y),
        *vector(f"{block}.layer_norm1", W, Y),
        *matrix(f"{block}.mlp.fc1", (F, W), Y),
        *matrix(f"{block}.mlp.fc2", (W, F), Y),
        *vector(f"{block}.layer_norm2", W, Y),
    )
