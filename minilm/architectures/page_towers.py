"""Two towers one behind the other, over pages: SAM's, and Qwen2's layers or CLIP's.

DeepSeek-OCR-2 asks the second with learned queries; Unlimited-OCR joins what both put out. Names, shapes
and defaults: huggingface/transformers `models/{deepseek_ocr2,unlimited_ocr}`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures import layout_of
from minilm.architectures.config_fields import Config, size, sizes, sub_config
from minilm.architectures.sam import sam_tower, with_ratio
from minilm.architectures.vision_tower import (
    F,
    P,
    Part,
    W,
    Y,
    in_numbers,
    matrix,
    once,
    vector,
    vision_symbols,
    without_bias,
)
from minilm.ledger import components
from minilm.ledger.layout import Role, Tensors

_SAM_NAMES = {
    ".patch_embed.projection.": ".patch_embed.proj.",
    ".layers.": ".blocks.",
    ".neck.conv1.": ".neck.0.",
    ".neck.layer_norm1.": ".neck.1.",
    ".neck.conv2.": ".neck.2.",
    ".neck.layer_norm2.": ".neck.3.",
    ".layer_norm": ".norm",
}
_QWEN2 = {
    "vocab_size": 1,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}


def channels(config: Config, last: int) -> list[int]:
    """What the two convolutions behind SAM put out."""
    return sizes(sub_config(config, "sam_config"), "downsample_channels", (512, last), 2)


def _sam(fields: Config, name: str, ends: list[int]) -> Tensors:
    part = in_numbers(sam_tower(fields, name))

    def renamed(own: str) -> str:
        for old, new in _SAM_NAMES.items():
            own = own.replace(old, new)
        return own

    outputs = size(fields, "output_channels", 256)
    middle, end = ends
    return (
        *(replace(t, name=renamed(t.name)) for t in part.tensors),
        without_bias(f"{name}.net_2", middle, outputs, 3, 3),
        without_bias(f"{name}.net_3", end, middle, 3, 3),
    )


def deepseek_ocr2(config: Config, name: str) -> Part:
    """Qwen2's layers, without its tables."""
    fields = {**_QWEN2, **sub_config(config, "encoder_config"), "model_type": "qwen2"}
    fields |= {"vocab_size": 1, "tie_word_embeddings": True, "layer_types": None}
    text = layout_of(fields)
    prefix, width = f"{name}.qwen2_model", text.symbols["d"]
    part = in_numbers(Part(text.tensors[1:], dict(text.symbols)))
    encoder = (
        replace(
            t,
            name=f"{prefix}.model.{t.name}",
            component=components.VISION,
            role=Role.ADDED if t.role is Role.ADDED else Role.ONCE,
        )
        for t in part.tensors
    )
    queries = (
        without_bias(f"{prefix}.query_768", 144, width),
        without_bias(f"{prefix}.query_1024", 256, width),
    )
    sam_fields = with_ratio(sub_config(config, "sam_config"))
    sam = _sam(sam_fields, f"{name}.sam_model", channels(config, 896))
    return Part((*sam, *encoder, *queries))


def unlimited_ocr(config: Config, name: str) -> Part:
    """CLIP's layers with queries, keys and values fused; its patches are SAM's."""
    fields = sub_config(config, "encoder_config")
    vision = f"{name}.vision_model"
    block = f"{vision}.transformer.layers.{{i}}"
    tensors = (
        *_sam(sub_config(config, "sam_config"), f"{name}.sam_model", channels(config, 1024)),
        once(f"{vision}.embeddings.class_embedding", (W,)),
        without_bias(f"{vision}.embeddings.position_embedding", P + 1, W),
        *vector(f"{vision}.pre_layrnorm", W),  # so in the files
        *vector(f"{block}.layer_norm1", W, Y),
        *matrix(f"{block}.self_attn.qkv_proj", (3 * W, W), Y),
        *matrix(f"{block}.self_attn.out_proj", (W, W), Y),
        *vector(f"{block}.layer_norm2", W, Y),
        *matrix(f"{block}.mlp.fc1", (F, W), Y),
        *matrix(f"{block}.mlp.fc2", (W, F), Y),
    )
    symbols = vision_symbols(fields, width=1024, depth=24, inner=4096, image=224, patch=14)
    return Part(tensors, symbols)
