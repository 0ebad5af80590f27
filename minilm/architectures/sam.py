"""SAM's tower over pictures, which models that read pages have: alone, or beside another.

Names, shapes and defaults: huggingface/transformers `models/{sam,got_ocr2,deepseek_vl_hybrid}`.
"""

from __future__ import annotations

from minilm.architectures.config_fields import (
    Config,
    flag,
    layer_numbers,
    layers,
    quotient,
    scaled_size,
    size,
)
from minilm.architectures.vision_tower import F, Part, W, Y, matrix, once, vector, without_bias


def with_ratio(config: Config) -> Config:
    """The config of a type whose feed-forward's width follows from `mlp_ratio` where it says none."""
    if config.get("mlp_dim") is not None:
        return config
    width = size(config, "hidden_size", 768)
    return {**config, "mlp_dim": scaled_size(config, "mlp_ratio", 4.0, width)}


def sam_tower(config: Config, name: str) -> Part:
    """Attention in windows but for some layers, relative positions, and a neck."""
    depth = layers(config, "num_hidden_layers", 12)
    whole = layer_numbers(config, "global_attn_indexes", (2, 5, 8, 11))
    window, patch = size(config, "window_size", 14), size(config, "patch_size", 16)
    side = quotient(size(config, "image_size", 1024), patch, "image_size", "patch_size")
    width, heads = size(config, "hidden_size", 768), size(config, "num_attention_heads", 12)
    head = quotient(width, heads, "hidden_size", "num_attention_heads")
    outputs, block = size(config, "output_channels", 256), f"{name}.layers.{{i}}"
    pixels = (W, size(config, "num_channels", 3), patch, patch)
    tensors = [*matrix(f"{name}.patch_embed.projection", pixels)]
    if flag(config, "use_abs_pos", True):
        tensors.append(once(f"{name}.pos_embed", (1, side, side, W)))
    tensors += [
        *vector(f"{block}.layer_norm1", W, Y),
        *matrix(f"{block}.attn.qkv", (3 * W, W), Y, bias=flag(config, "qkv_bias", True)),
        *matrix(f"{block}.attn.proj", (W, W), Y),
        *vector(f"{block}.layer_norm2", W, Y),
        *matrix(f"{block}.mlp.lin1", (F, W), Y),
        *matrix(f"{block}.mlp.lin2", (W, F), Y),
    ]
    if flag(config, "use_rel_pos", True):
        for i in range(depth):
            rows = 2 * (side if i in whole else window) - 1
            own = f"{name}.layers.{i}.attn.rel_pos_"
            tensors += [once(own + axis, (rows, head)) for axis in "hw"]
    neck = f"{name}.neck"
    tensors += [
        without_bias(f"{neck}.conv1", outputs, W, 1, 1),
        *vector(f"{neck}.layer_norm1", outputs),
        without_bias(f"{neck}.conv2", outputs, outputs, 3, 3),
        *vector(f"{neck}.layer_norm2", outputs),
    ]
    symbols = {"W": width, "Y": depth, "F": size(config, "mlp_dim", 3072)}
    return Part(tuple(tensors), symbols)
