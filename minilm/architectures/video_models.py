"""The models over pictures and videos of `image_text.py`: Qwen-VL, GLM-V and those that took their towers.

Names, shapes and defaults: huggingface/transformers `models/TYPE`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from minilm.architectures import image_projectors as projectors
from minilm.architectures import patch_towers, sound_towers
from minilm.architectures.building_blocks import s
from minilm.architectures.config_fields import Config, is_version_4, sub_config
from minilm.architectures.decoder import ATTENTION, BLOCK, MLP
from minilm.architectures.joint_text import Model
from minilm.architectures.moe import (
    LayerGroup,
    correction_bias,
    dense_feed_forward,
    routed_experts,
    shared_expert,
    with_stacked_experts,
)
from minilm.architectures.vision_tower import Part
from minilm.ledger.layout import Layout


def _stacked(text: Layout, config: Config) -> Layout:
    """In files from before transformers 5 the matrices are (in, out)."""
    return with_stacked_experts(text, MLP, transposed=is_version_4(config))


def _with_frequencies(text: Layout, config: Config) -> Layout:
    """Whose files hold the rotary frequencies of each layer."""
    del config
    return replace(text, ignored=(f"{ATTENTION}.rotary_emb.inv_freq",))


def _minimax_m3_files(text: Layout, config: Config) -> Layout:
    """Every expert and every matrix apart, and the sparse feed-forward under Mixtral's name."""
    del config
    prefix = f"{BLOCK}.block_sparse_moe"
    groups = {t.name: LayerGroup(t.repeat, t.layers) for t in text.tensors}
    dense = groups.get(f"{MLP}.gate_up_proj.weight")
    experts = groups.get(f"{MLP}.experts.gate_up_proj")
    others = (
        replace(t, name=t.name.replace(".indexer.", ".index_"))
        for t in text.tensors
        if not t.name.startswith(f"{MLP}.")
    )
    return replace(
        text,
        tensors=(
            *others,
            *dense_feed_forward(MLP, dense),
            *routed_experts(prefix, experts, names=("w1", "w3", "w2")),
            *shared_expert(f"{prefix}.shared_experts", experts, width=s),
        ),
        buffers=correction_bias(f"{prefix}.e_score_correction_bias", experts),
    )


def _heard_by(tower: Callable[[Config, str], Part]) -> Callable[[Config], Part]:
    return lambda config: tower(sub_config(config, "audio_config"), "audio_tower")


_BELOW = "model.language_model."
_QWEN2_VL_TEXT = {
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "max_window_layers": 80,
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
    "glm4v": replace(_GLM4V, text_tied=False),
    "glm4v_moe": replace(
        _GLM4V,
        text_tied=False,
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
        text_tied=False,
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
    "kimi_k25": Model(
        "deepseek_v3",
        "kimi_k25_vision",
        patch_towers.kimi_k25_projector,
        tower="vision_tower",
        between="mm_projector",
        inside="language_model.",
        texts={"kimi_k2": "deepseek_v3"},
    ),
    "kimi_vl": Model(  # moonshotai/Kimi-VL-A3B-Instruct modeling_kimi_vl.py
        "deepseek_v3",
        "moonvit",
        patch_towers.kimi_vl_projector,
        tower="vision_tower",
        between="multi_modal_projector",
        inside="language_model.",
        own_ties=True,
        changes=_with_frequencies,
    ),
    "minimax_m3_vl": Model(
        "minimax_m3_vl_text",
        "minimax_m3_vl_vision",
        projectors.minimax_m3,
        inside="language_model.",
        tower="vision_tower.vision_model",
        between="multi_modal_projector",
        tied=False,
        text_tied=False,
        changes=_minimax_m3_files,
    ),
    "nemotron_h_omni": Model(
        "nemotron_h",
        "radio",
        projectors.nemotron,
        inside="language_model.",
        tower="vision_model.radio_model.model",
        between="mlp1",
        tied=False,
        bare_vision={"video_temporal_patch_size": 2},
        ending="Reasoning_V3",
    ),
    "qwen2_5_omni_thinker": replace(
        _QWEN2_VL,
        text="qwen2_5_omni_text",
        vision="qwen2_5_omni_vision_encoder",
        texts={"qwen2_5_omni_text": "qwen2"},
        text_defaults={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
            "sliding_window": 32768,
        },
        beside=_heard_by(sound_towers.qwen2_5_omni),
    ),
    "qwen2_5_vl": replace(
        _QWEN2_VL,
        has_text_beside=True,
        text_tied=False,
        text="qwen2_5_vl_text",
        vision="qwen2_5_vl_vision",
        texts={"qwen2_5_vl_text": "qwen2", "qwen2_5_vl": "qwen2"},
    ),
    "qwen2_vl": replace(_QWEN2_VL, has_text_beside=True, text_tied=False),
    "qwen3_5": replace(
        _QWEN3_VL, text="qwen3_5_text", vision="qwen3_5_vision", texts={}, text_defaults={}
    ),
    "qwen3_5_moe": replace(
        _QWEN3_VL, text="qwen3_5_moe_text", vision="qwen3_5_moe_vision", texts={}, text_defaults={}
    ),
    "qwen3_omni_moe_thinker": replace(
        _QWEN2_VL,
        text="qwen3_omni_moe_text",
        vision="qwen3_omni_moe_vision_encoder",
        texts={"qwen3_omni_moe_text": "qwen3_moe"},
        text_defaults={
            "vocab_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "head_dim": None,
            "moe_intermediate_size": 768,
            "num_experts_per_tok": 8,
            "num_experts": 128,
        },
        beside=_heard_by(sound_towers.qwen3_omni),
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
