"""Language models that see: a declared text model by its text_config, a tower, and a projector between.

LLaVA and its kin, PaliGemma, InternVL, Mistral 3, Idefics, Qwen-VL, GLM-V and others. Pictures are used
once, not once a token. Names, shapes and defaults: huggingface/transformers `models/TYPE`; its version 5
writes CLIP's and SigLIP's towers without `vision_model.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures import image_projectors as projectors
from minilm.architectures.config_fields import sub_config
from minilm.architectures.decoder import BLOCK
from minilm.architectures.joint_text import Model, is_version_4, joined, text_layout
from minilm.architectures.moe import LayerGroup, stacked_experts
from minilm.architectures.task_heads import (
    WITH_ENCODERS,
    UndeclaredClassError,
    class_name_of,
    undeclared_class,
)
from minilm.architectures.towers import TOWERS, tower
from minilm.architectures.vision_tower import Part, projector
from minilm.ledger.layout import Layout

Config = Mapping[str, Any]

_VIT_L = {  # of LLaVA where config.json has no vision_config
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "intermediate_size": 4096,
    "image_size": 336,
    "patch_size": 14,
}
_SO400M = {
    "hidden_size": 1152,
    "num_hidden_layers": 26,
    "intermediate_size": 4304,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}


def layout(config: Config) -> Layout:
    """The tensors of these types' ForConditionalGeneration for a config.json."""
    name, family = class_name_of(config), config["model_type"]
    if name and not name.endswith(WITH_ENCODERS):
        raise undeclared_class(config)
    model = _MODELS[family]
    text = text_layout(config, model)
    vision = _vision_config(config, model)
    kind = str(vision.get("model_type") or model.vision)
    if kind not in TOWERS:  # published files leave out the ending
        kind = f"{kind}_vision"
    if kind not in TOWERS:
        expected = f"one of {', '.join(TOWERS)}"
        raise UndeclaredClassError(
            "config.json: vision_config", shortened(vision.get("model_type")), expected
        )
    vision = {**vision, "model_type": kind}
    part = tower(vision, _tower_name(config, model, kind), model.vision)
    if model.second_tower:
        second = tower(vision, model.second_tower, model.vision)
        part = part._replace(tensors=(*part.tensors, *second.tensors))
    between = projector(model.projector(config, vision, model.between))
    return joined(text, family, part, Part(between, {}))


def _vision_config(config: Config, model: Model) -> Config:
    if config.get("vision_config") is None:
        return model.bare_vision
    return sub_config(config, "vision_config")


def _tower_name(config: Config, model: Model, kind: str) -> str:
    """Before transformers 5 CLIP's and SigLIP's towers were inside `vision_model`."""
    if is_version_4(config) and kind in ("clip_vision_model", "siglip_vision_model"):
        return f"{model.tower}.vision_model"
    return model.tower


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


_FIRST_NAMES: dict[str, Any] = {  # as LLaVA's first files have them
    "inside": "language_model.",
    "tower": "vision_tower",
    "between": "multi_modal_projector",
}
_LLAVA = Model(
    "llama",
    "clip_vision_model",
    projectors.two_maps,
    tied=False,
    bare_vision=_VIT_L,
    **_FIRST_NAMES,
)
_IDEFICS3 = Model(
    "llama",
    "idefics3_vision",
    projectors.idefics3,
    below="model.text_model.",
    tower="model.vision_model",
    between="model.connector",
    tied=False,
)
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
    below="model.language_model.",
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
_BELOW = "model.language_model."
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
_GOT_OCR2 = Model(
    "qwen2",
    "got_ocr2_vision",
    projectors.got_ocr2,
    bare_text={
        "vocab_size": 151860,
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
    },
    **_FIRST_NAMES,
)
_MODELS = {
    "aria": replace(
        _LLAVA,
        text="aria_text",
        vision="idefics3_vision",
        projector=projectors.aria,
        bare_vision={},
    ),
    "aya_vision": Model(
        "cohere2",
        "siglip_vision_model",
        projectors.aya_vision,
        bare_vision=_SO400M,
        **_FIRST_NAMES,
    ),
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
    "got_ocr2": _GOT_OCR2,
    "pp_chart2table": replace(_GOT_OCR2, vision="pp_chart2table_vision"),
    "hyperclovax_vision_v2": Model(
        "hyperclovax",
        "qwen2_5_vl_vision",
        projectors.one_map,
        below=_BELOW,
        tower="model.vision_model",
        between="model.vision_projector",
        head=_BELOW,
    ),
    "ovis2": Model(
        "qwen2",
        "ovis2_vision",
        projectors.ovis2,
        below=_BELOW,
        between="model.visual_embeddings_table",
    ),
    "paddleocr_vl": Model(
        "paddleocr_vl_text",
        "paddleocr_vl_vision",
        projectors.paddleocr,
        tower="visual.vision_model",
        between="mlp_AR",
        texts={"paddleocr_vl_text": "ernie4_5", "paddleocr_vl": "ernie4_5"},
        text_defaults={
            "vocab_size": 103424,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 18,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 128,
        },
    ),
    "qwen3_5": replace(
        _QWEN3_VL, text="qwen3_5_text", vision="qwen3_5_vision", texts={}, text_defaults={}
    ),
    "qwen3_5_moe": replace(
        _QWEN3_VL, text="qwen3_5_moe_text", vision="qwen3_5_moe_vision", texts={}, text_defaults={}
    ),
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
    "video_llava": replace(
        _LLAVA,
        tower="image_tower",
        second_tower="video_tower",
        bare_vision={**_VIT_L, "image_size": 224},
    ),
    "cohere2_vision": Model(
        "cohere2",
        "siglip_vision_model",
        projectors.cohere2_vision,
        below=_BELOW,
        bare_vision={"hidden_size": 1152, "image_size": 512, "num_hidden_layers": 27},
    ),
    "deepseek_vl": Model(
        "llama",
        "siglip_vision_model",
        projectors.deepseek_vl,
        below=_BELOW,
        tower="model.vision_model",
        between="model.aligner",
    ),
    "glm46v": _GLM4V,
    "glmga": _GLM4V,
    "glm4v": _GLM4V,
    "idefics2": replace(
        _IDEFICS3, text="mistral", vision="idefics2_vision", projector=projectors.idefics2
    ),
    "idefics3": _IDEFICS3,
    "internvl": Model("qwen2", "internvl_vision", projectors.internvl, **_FIRST_NAMES),
    "lfm2_vl": Model("lfm2", "siglip2_vision_model", projectors.lfm2_vl, below=_BELOW),
    "lighton_ocr": Model(
        "qwen3",
        "pixtral",
        projectors.mistral3,
        below=_BELOW,
        tower="model.vision_encoder",
        between="model.vision_projection",
        bare_text={
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "max_position_embeddings": 40960,
            "num_attention_heads": 16,
            "num_hidden_layers": 28,
            "num_key_value_heads": 8,
        },
        bare_vision={"patch_size": 14},
    ),
    "llava": _LLAVA,
    "llava_next": replace(_LLAVA, projector=projectors.with_newline),
    "llava_next_video": replace(_LLAVA, projector=projectors.with_newline),
    "llava_onevision": replace(
        _LLAVA,
        text="qwen2",
        vision="siglip_vision_model",
        projector=projectors.with_newline,
        bare_vision=_SO400M,
    ),
    "mistral3": Model(
        "mistral",
        "pixtral",
        projectors.mistral3,
        bare_text={
            "head_dim": 128,
            "hidden_size": 5120,
            "intermediate_size": 32768,
            "max_position_embeddings": 131072,
            "num_hidden_layers": 40,
            "sliding_window": None,
            "vocab_size": 131072,
        },
        bare_vision={"patch_size": 14},
        **_FIRST_NAMES,
    ),
    "paligemma": Model(
        "gemma",
        "siglip_vision_model",
        projectors.paligemma,
        bare_text={
            "hidden_size": 2048,
            "intermediate_size": 16384,
            "num_attention_heads": 8,
            "num_hidden_layers": 18,
            "num_key_value_heads": 1,
            "vocab_size": 257152,
        },
        bare_vision={
            "hidden_size": 1152,
            "intermediate_size": 4096,
            "num_hidden_layers": 27,
            "patch_size": 14,
            "projection_dim": 2048,
            "vision_use_head": False,
        },
        **_FIRST_NAMES,
    ),
    "qwen2_5_vl": replace(
        _QWEN2_VL,
        text="qwen2_5_vl_text",
        vision="qwen2_5_vl_vision",
        texts={"qwen2_5_vl_text": "qwen2", "qwen2_5_vl": "qwen2"},
    ),
    "qwen2_vl": _QWEN2_VL,
    "qwen3_vl": _QWEN3_VL,
    "smolvlm": replace(_IDEFICS3, vision="smolvlm_vision"),
    "video_llama_3": Model(
        "qwen2",
        "video_llama_3_vision",
        projectors.video_llama_3,
        below=_BELOW,
        tower="model.vision_model",
        between="model.projector",
        tied=False,
    ),
    "vipllava": replace(_LLAVA, projector=projectors.vipllava),
}
