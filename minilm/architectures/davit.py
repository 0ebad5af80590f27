"""DaViT, Florence-2's tower: stages of growing width, in each of which patches and channels attend by turns.

Names, shapes and defaults: huggingface/transformers `models/florence2`.
"""

from __future__ import annotations

from typing import Any

from minilm.architectures.config_fields import (
    Config,
    depths,
    few,
    flag,
    listed,
    scaled_size,
    size,
    sizes,
)
from minilm.architectures.vision_tower import Part, matrix, vector
from minilm.ledger.layout import Tensors


def davit(config: Config, name: str) -> Part:
    """All of it below ``name``; every stage has sizes of its own, so it has no letters."""
    widths = sizes(config, "embed_dim", (128, 256, 512, 1024))
    stages = len(widths)
    blocks = depths(config, "depths", (1, 1, 9, 1), stages)
    few("depths", sum(blocks))
    patches = sizes(config, "patch_size", (7, 3, 3, 3), stages)
    first = listed(config, "patch_prenorm", (False, True, True, True), stages)
    tensors: list[Any] = []
    inputs = size(config, "in_channels", 3)
    for stage, (width, depth, patch) in enumerate(zip(widths, blocks, patches, strict=True)):
        conv = f"{name}.convs.{stage}"
        tensors += matrix(f"{conv}.conv", (width, inputs, patch, patch))
        tensors += vector(f"{conv}.norm", inputs if first[stage] else width)
        for index in range(depth):
            block = f"{name}.blocks.{stage}.{index}"
            tensors += _block(config, f"{block}.spatial_block", "window_attn", width)
            tensors += _block(config, f"{block}.channel_block", "channel_attn", width)
        inputs = width
    return Part(tuple(tensors))


def _block(config: Config, name: str, attention: str, width: int) -> Tensors:
    inner = scaled_size(config, "mlp_ratio", 4.0, width)
    return (
        *matrix(f"{name}.conv1", (width, 1, 3, 3)),
        *vector(f"{name}.norm1", width),
        *matrix(f"{name}.{attention}.qkv", (3 * width, width), bias=flag(config, "qkv_bias", True)),
        *matrix(f"{name}.{attention}.proj", (width, width)),
        *matrix(f"{name}.conv2", (width, 1, 3, 3)),
        *vector(f"{name}.norm2", width),
        *matrix(f"{name}.ffn.fc1", (inner, width)),
        *matrix(f"{name}.ffn.fc2", (width, inner)),
    )
