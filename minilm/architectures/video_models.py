"""The models over pictures and videos of `image_text.py`: Qwen-VL, GLM-V and those that took their towers.

Names, shapes and defaults: huggingface/transformers `models/TYPE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures import image_projectors as projectors
from minilm.architectures.decoder import BLOCK
from minilm.architectures.joint_text import Model, is_version_4
from minilm.architectures.moe import LayerGroup, stacked_experts
from minilm.ledger.layout import Layout

Config = Mapping[str, Any]


def _stacked(text: Layout, config: Config) -> Layout:
    """The experts of all in one tensor; (in, out) in files from before transformers 5."""
    groups = {t.repeat: t.layers for t in text.tensors if "{e}" in t.name}
    kept = tuple(t for t in text.tensors if "{e}" not in t.name)
    name, turned = f"{BLOCK}.mlp.experts.", is_version_4(config)
    both = (f"{name}gate_up_proj", f"{name}down_proj")
    stacked = (
        tensor
        for repeat, at in groups.items()
        for tensor in stacked_experts(*both, LayerGroup(repeat, at), transposed=turned)
    )
    return replace(text, tensors=(*kept, *stacked))


_BELOW = "model.language_model."
_QWEN2_VL_TEXT = {
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
}
_QWEN2_VL = Model(
    "qwen2_vl_text",
    "qwen2_vl_vision",
    projectors.no_projector,
    tower="visual",
    tied=False,
    texts={"qwen2_vl_text": "qwen2", "qwen2_vl": "qwen2"},
    text_defaults=_QWEN2_VL_TEXT,
)
_QWEN3_VL = Model(
    "qwen3_vl_text",
    "qwen3_vl_vision",
    projectors.no_projector,
    below=_BELOW,
    tower="model.visual",
    tied=False,
    texts={"qwen3_vl_text": "qwen3", "qwen3_vl": "qwen3"},
    text_defaults={"num_key_value_heads": 32, "max_position_embeddings": 128000},
)
_GLM4V = replace(
    _QWEN3_VL,
    text="glm4v_text",
    vision="glm4v_vision",
    texts={"glm4v_text": "glm4", "glm4v": "glm4"},
    text_defaults={
        "head_dim": None,
        "max_position_embeddings": 32768,
        "attention_bias": True,
    },
)
_GLM_OCR_TEXT = {
    "vocab_size": 59392,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": None,
    "attention_bias": False,
    "max_position_embeddings": 131072,
}
VIDEOS = {
    "cohere_compass": replace(
        _QWEN3_VL,
        text="cohere_compass_text",
        vision="cohere_compass_vision",
        texts={},
        text_defaults={},
    ),
    "exaone4_5": replace(
        _QWEN3_VL, text="exaone4", vision="exaone4_5_vision", texts={}, text_defaults={}
    ),
    "glm46v": _GLM4V,
    "glm4v": _GLM4V,
    "glm4v_moe": replace(
        _GLM4V,
        text="glm4v_moe_text",
        vision="glm4v_moe_vision",
        texts={"glm4v_moe_text": "glm4_moe", "glm4v_moe": "glm4_moe"},
        text_defaults={
            "attention_bias": True,
            "head_dim": None,
            "vocab_size": 151424,
            "max_position_embeddings": 65536,
        },
    ),
    "glm_ocr": replace(
        _GLM4V,
        text="glm_ocr_text",
        vision="glm_ocr_vision",
        texts={"glm_ocr_text": "glm4"},
        text_defaults=_GLM_OCR_TEXT,
    ),
    "glmga": _GLM4V,
    "hyperclovax_vision_v2": Model(
        "hyperclovax",
        "qwen2_5_vl_vision",
        projectors.one_map,
        below=_BELOW,
        tower="model.vision_model",
        between="model.vision_projector",
        head=_BELOW,
    ),
    "qwen2_5_vl": replace(
        _QWEN2_VL,
        text="qwen2_5_vl_text",
        vision="qwen2_5_vl_vision",
        texts={"qwen2_5_vl_text": "qwen2", "qwen2_5_vl": "qwen2"},
    ),
    "qwen2_vl": _QWEN2_VL,
    "qwen3_5": replace(
        _QWEN3_VL, text="qwen3_5_text", vision="qwen3_5_vision", texts={}, text_defaults={}
    ),
    "qwen3_5_moe": replace(
        _QWEN3_VL, text="qwen3_5_moe_text", vision="qwen3_5_moe_vision", texts={}, text_defaults={}
    ),
    "qwen3_vl": _QWEN3_VL,
    "qwen3_vl_moe": replace(
        _QWEN3_VL,
        text="qwen3_vl_moe_text",
        vision="qwen3_vl_moe_vision",
        texts={"qwen3_vl_moe_text": "qwen3_moe", "qwen3_vl_moe": "qwen3_moe"},
        text_defaults={
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "head_dim": None,
            "max_position_embeddings": 128000,
            "moe_intermediate_size": 1408,
            "num_experts_per_tok": 4,
            "num_experts": 60,
        },
        changes=_stacked,
    ),
}
