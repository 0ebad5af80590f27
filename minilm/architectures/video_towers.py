"""Towers over pictures and videos, whose patches are of several frames: Qwen-VL's, GLM-V's and EXAONE's.

Names, shapes and defaults: huggingface/transformers `models/{qwen2_vl,qwen2_5_vl,qwen3_vl,glm4v,glm_ocr,
exaone4_5}`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.config_fields import (
    Config,
    field_name,
    flag,
    layer_list,
    layers,
    quotient,
    size,
)
from minilm.architectures.vision_tower import (
    F,
    Part,
    W,
    Y,
    gain,
    matrix,
    projector,
    tower_symbols,
    vector,
    without_bias,
)
from minilm.ledger.layout import Tensors
from minilm.ledger.symbols import Polynomial, as_polynomial


def _patches(config: Config, name: str, patch: int, *, bias: bool) -> Tensors:
    """A convolution over time as well."""
    side = size(config, "patch_size", patch)
    channels = size(config, field_name(config, "in_channels", "in_chans"), 3)
    shape = (W, channels, size(config, "temporal_patch_size", 2), side, side)
    weight, added = matrix(f"{name}.patch_embed.proj", shape)
    return (weight, added) if bias else (weight,)


def qwen2_vl(config: Config, name: str) -> Part:
    block, outputs = f"{name}.blocks.{{i}}", size(config, "hidden_size", 3584)
    width = size(config, "embed_dim", 1280)
    merged = size(config, "spatial_merge_size", 2) ** 2 * W
    tensors = (
        *_patches(config, name, 14, bias=False),
        *vector(f"{block}.norm1", W, Y),
        *vector(f"{block}.norm2", W, Y),
        *matrix(f"{block}.attn.qkv", (3 * W, W), Y),
        *matrix(f"{block}.attn.proj", (W, W), Y),
        *matrix(f"{block}.mlp.fc1", (F, W), Y),
        *matrix(f"{block}.mlp.fc2", (W, F), Y),
        *projector(
            [
                *vector(f"{name}.merger.ln_q", W),
                *matrix(f"{name}.merger.mlp.0", (merged, merged)),
                *matrix(f"{name}.merger.mlp.2", (outputs, merged)),
            ]
        ),
    )
    inner = width * size(config, "mlp_ratio", 4)
    return Part(tensors, {"W": width, "Y": layers(config, "depth", 32), "F": inner})


def qwen2_5_vl(config: Config, name: str) -> Part:
    block, outputs = f"{name}.blocks.{{i}}", size(config, "out_hidden_size", 3584)
    merged = size(config, "spatial_merge_size", 2) ** 2 * W
    tensors = (
        *_patches(config, name, 14, bias=False),
        gain(f"{block}.norm1", W, Y),
        gain(f"{block}.norm2", W, Y),
        *matrix(f"{block}.attn.qkv", (3 * W, W), Y),
        *matrix(f"{block}.attn.proj", (W, W), Y),
        *matrix(f"{block}.mlp.gate_proj", (F, W), Y),
        *matrix(f"{block}.mlp.up_proj", (F, W), Y),
        *matrix(f"{block}.mlp.down_proj", (W, F), Y),
        *projector(
            [
                gain(f"{name}.merger.ln_q", W),
                *matrix(f"{name}.merger.mlp.0", (merged, merged)),
                *matrix(f"{name}.merger.mlp.2", (outputs, merged)),
            ]
        ),
    )
    symbols = tower_symbols(config, 3584, 32, 3420, depth_field="depth")
    return Part(tensors, symbols)


def qwen2_5_omni(config: Config, name: str) -> Part:
    """Qwen2.5-VL's with queries, keys and values apart."""
    part = qwen2_5_vl(config, name)
    apart = (
        replace(t, name=t.name.replace(".qkv.", f".{n}."), shape=(W, *t.shape[1:]))
        for t in part.tensors
        if ".attn.qkv." in t.name
        for n in "qkv"
    )
    kept = (t for t in part.tensors if ".attn.qkv." not in t.name)
    return part._replace(tensors=(*kept, *apart))


def qwen3_omni(config: Config, name: str) -> Part:
    """Qwen3-VL's, its mergers under other names."""
    part = qwen3_vl(config, name)
    names = {
        "deepstack_merger_list": "merger_list",
        ".norm.": ".ln_q.",
        ".linear_fc1.": ".mlp.0.",
        ".linear_fc2.": ".mlp.2.",
    }

    def renamed(own: str) -> str:
        if "merger" in own:
            for old, new in names.items():
                own = own.replace(old, new)
        return own

    return part._replace(tensors=tuple(replace(t, name=renamed(t.name)) for t in part.tensors))


def qwen3_vl(config: Config, name: str) -> Part:
    """With mergers of several layers' outputs, which Qwen3.5 has not."""
    block, outputs = f"{name}.blocks.{{i}}", size(config, "out_hidden_size", 3584)
    merged = size(config, "spatial_merge_size", 2) ** 2 * W
    is_deep = not str(config["model_type"]).startswith("qwen3_5")
    chosen = layer_list(config, "deepstack_visual_indexes", (8, 16, 24)) if is_deep else ()
    positions = size(config, "num_position_embeddings", 2304)

    def merger(prefix: str, width: Polynomial) -> Tensors:
        return projector(
            [
                *vector(f"{prefix}.norm", width),
                *matrix(f"{prefix}.linear_fc1", (merged, merged)),
                *matrix(f"{prefix}.linear_fc2", (outputs, merged)),
            ]
        )

    tensors = (
        *_patches(config, name, 16, bias=True),
        without_bias(f"{name}.pos_embed", positions, W),
        *vector(f"{block}.norm1", W, Y),
        *vector(f"{block}.norm2", W, Y),
        *matrix(f"{block}.attn.qkv", (3 * W, W), Y),
        *matrix(f"{block}.attn.proj", (W, W), Y),
        *matrix(f"{block}.mlp.linear_fc1", (F, W), Y),
        *matrix(f"{block}.mlp.linear_fc2", (W, F), Y),
        *merger(f"{name}.merger", W),
        *(
            t
            for number in range(len(chosen))
            for t in merger(f"{name}.deepstack_merger_list.{number}", merged)
        ),
    )
    symbols = tower_symbols(config, 1152, 27, 4304, depth_field="depth")
    return Part(tensors, symbols)


def glm4v(config: Config, name: str) -> Part:
    block, merger = f"{name}.blocks.{{i}}", f"{name}.merger"
    merge = size(config, "spatial_merge_size", 2)
    outputs = as_polynomial(size(config, "out_hidden_size", 4096))
    inner = as_polynomial(size(config, "intermediate_size", 13696))
    bias = flag(config, "attention_bias", False)
    side = size(config, "image_size", 336) // size(config, "patch_size", 14)
    attention = [
        *matrix(f"{block}.attn.qkv", (3 * W, W), Y),
        without_bias(f"{block}.attn.proj", W, W, repeat=Y),
    ]
    tensors = (
        without_bias(f"{name}.embeddings.position_embedding", side**2, W),
        *_patches(config, name, 14, bias=True),
        gain(f"{name}.post_conv_layernorm", W),
        gain(f"{block}.norm1", W, Y),
        gain(f"{block}.norm2", W, Y),
        *(t for t in attention if bias or not t.name.endswith("bias")),
        without_bias(f"{block}.mlp.gate_proj", outputs, W, repeat=Y),
        without_bias(f"{block}.mlp.up_proj", outputs, W, repeat=Y),
        without_bias(f"{block}.mlp.down_proj", W, outputs, repeat=Y),
        gain(f"{name}.post_layernorm", W),
        *projector(
            [
                *matrix(f"{name}.downsample", (outputs, W, merge, merge)),
                without_bias(f"{merger}.proj", outputs, outputs),
                *vector(f"{merger}.post_projection_norm", outputs),
                without_bias(f"{merger}.gate_proj", inner, outputs),
                without_bias(f"{merger}.up_proj", inner, outputs),
                without_bias(f"{merger}.down_proj", outputs, inner),
            ]
        ),
    )
    symbols = {"W": size(config, "hidden_size", 1536), "Y": layers(config, "depth", 24)}
    return Part(tensors, symbols)


def glm_ocr(config: Config, name: str) -> Part:
    """GLM-V's with norms of queries and keys, and rotary positions alone."""
    block, merger = f"{name}.blocks.{{i}}", f"{name}.merger"
    merge, heads = size(config, "spatial_merge_size", 2), size(config, "num_heads", 16)
    outputs = as_polynomial(size(config, "out_hidden_size", 1536))
    width, channels = size(config, "hidden_size", 1024), size(config, "in_channels", 3)
    head = quotient(width, heads, "hidden_size", "num_heads")
    inner = outputs * channels
    forward = (("gate_proj", F, W), ("up_proj", F, W), ("down_proj", W, F))
    maps = [
        *matrix(f"{block}.attn.qkv", (3 * W, W), Y),
        *matrix(f"{block}.attn.proj", (W, W), Y),
        *(
            t
            for n, rows, columns in forward
            for t in matrix(f"{block}.mlp.{n}", (rows, columns), Y)
        ),
    ]
    bias = flag(config, "attention_bias", True)
    tensors = (
        *_patches(config, name, 14, bias=True),
        gain(f"{block}.norm1", W, Y),
        gain(f"{block}.norm2", W, Y),
        *(gain(f"{block}.attn.{n}_norm", head, Y) for n in "qk"),
        *(t for t in maps if bias or not t.name.endswith(".bias")),
        gain(f"{name}.post_layernorm", W),
        *projector(
            [
                *matrix(f"{name}.downsample", (outputs, W, merge, merge)),
                without_bias(f"{merger}.proj", outputs, outputs),
                *vector(f"{merger}.post_projection_norm", outputs),
                without_bias(f"{merger}.gate_proj", inner, outputs),
                without_bias(f"{merger}.up_proj", inner, outputs),
                without_bias(f"{merger}.down_proj", outputs, inner),
            ]
        ),
    )
    symbols = {
        "W": width,
        "Y": layers(config, "depth", 24),
        "F": size(config, "intermediate_size", 4096),
    }
    return Part(tensors, symbols)


def exaone4_5(config: Config, name: str) -> Part:
    """Qwen2.5-VL's with grouped keys and values."""
    part = qwen2_5_vl(config, name)
    heads, keys = size(config, "num_heads", 16), size(config, "num_key_value_heads", 8)
    rows = (heads + 2 * keys) * max(1, part.symbols["W"] // heads)
    tensors = (
        replace(t, shape=(as_polynomial(rows), *t.shape[1:])) if ".attn.qkv." in t.name else t
        for t in part.tensors
    )
    return Part(tuple(tensors), part.symbols)
