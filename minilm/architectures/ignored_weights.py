"""Weights that published files hold and transformers does not load: they are in no count.

The patterns are `_keys_to_ignore_on_load_unexpected` of huggingface/transformers `models/TYPE`, of next-token
modules and of the rest. Of encoders alone, whose pattern is the decoder, the file's own class is told.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from minilm.architectures.task_heads import class_name_of

_NEXT_TOKEN = {
    "bailing_hybrid": (r"model\.layers\.42\..*",),
    "deepseek_v3": (r"model\.layers\.61.*",),
    "deepseek_v32": (r"model\.layers\.61.*",),
    "deepseek_v4": (r"(^|\.)mtp\..*",),
    "dots3_note_text": (
        r"^model\.(language_model\.)?layers\.46\.",
        r"^model\.(language_model\.)?mtp\.",
    ),
    "ernie4_5_moe": ("mtp",),
    "exaone4_5": ("mtp.*",),
    "exaone_moe": ("mtp.*",),
    "glm4_moe": (r"model\.layers\.92.*", r"model\.layers\.46.*"),
    "glm4_moe_lite": (r"model\.layers\.47.*",),
    "glm4v_moe": (r"model\.layers\.92.*", r"model\.layers\.46.*"),
    "glm_moe_dsa": (r"model\.layers\.78.*",),
    "glm_ocr": (r"model\.language_model\.layers\.16.*",),
    "granite_docling": (r"^mtp\.",),
    "hy_v3": (r"model\.layers\.80.*",),
    "hy_v4": (r"model\.mtp_layers\..*",),
    "inkling_text": (r"model\.mtp\..*",),
    "longcat_flash": (r"model\.mtp.*",),
    "mellum": (r"^mtp\.",),
    "mimo_v2_flash": (r"^model\.mtp\.",),
    "minimax_m3_vl": (r"(^|\.)mtp\..*",),
    "minimax_m3_vl_text": (r"(^|\.)mtp\..*",),
    "nemotron_h": ("mtp.*",),
    "olmo_hybrid": ("^mtp.*",),
    "qwen3_5": ("^mtp.*",),
    "qwen3_5_moe": ("^mtp.*",),
    "qwen3_5_moe_text": ("^mtp.*",),
    "qwen3_5_text": ("^mtp.*",),
    "qwen3_next": ("^mtp.*",),
}
_CROSS_POSITIONS = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
_INDEX = ".*relative_position_index.*"
_BESIDE_THINKER2, _BESIDE_THINKER3 = ("^talker", "^token2wav"), ("^talker", "^code2wav")
_OTHERS = {
    "axk1": ("inv_freq", r"mlp\.post_mlp_layernorm"),
    "axk2": ("inv_freq",),
    "bart": ("encoder.version", "decoder.version"),
    "beit": (_INDEX,),
    "canary": (r"preprocessor\.featurizer\..*",),
    "cohere_asr": (r"preprocessor\.featurizer\..*",),
    "data2vec-vision": (_INDEX,),
    "deberta": ("position_embeddings",),
    "deberta-v2": ("position_embeddings",),
    "detr": (r"detr\.model\.backbone\.model\.layer\d+\.0\.downsample\.1\.num_batches_tracked",),
    "esm": ("position_embeddings.weight",),
    "esmc": ("inv_freq", "original_inv_freq"),
    "florence2": ("encoder.version", "decoder.version"),
    "gpt2": ("attn.bias", "crossattention.bias"),
    "gpt_neox": ("attention.bias", "attention.masked_bias"),
    "gte": ("inv_freq", "original_inv_freq"),
    "longt5": (_CROSS_POSITIONS,),
    "mt5": (_CROSS_POSITIONS,),
    "mvp": ("final_logits_bias",),
    "nemotron_h_omni": (r"audio_tower\.feature_extractor\.",),
    "nomic_bert": ("inv_freq", "original_inv_freq"),
    "paddleocr_vl": ("packing_position_embedding", "vision_model.head"),
    "qwen2_5_omni": _BESIDE_THINKER2,
    "qwen2_5_omni_thinker": _BESIDE_THINKER2,
    "qwen3_omni_moe": _BESIDE_THINKER3,
    "qwen3_omni_moe_thinker": _BESIDE_THINKER3,
    "swin": (
        r"attention\.self\.relative_position_index",
        r"attention\.relative_position_bias\.relative_position_index",
    ),
    "t5": (_CROSS_POSITIONS,),
    "ultravbert": (r"vision_model\.head\.",),
    "unlimited_ocr": ("patch_embedding", "lm_head"),
    # Of one class of a type.
    "DebertaV2ForMaskedLM": ("mask_predictions.*",),
    "Qwen3_5ForCausalLM": ("^model.visual.*",),
    "Qwen3_5MoeForCausalLM": ("^model.visual.*",),
}
# Layers that use the keys and values of an earlier one, and declare none of their own.
SHARING = ("gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "gemma4_unified")
_KEYS_AND_VALUES = re.compile(r"(.*layers\.\d+\.self_attn\.)(?:[kv]_proj|[kv]_norm)(?:\..*)?")


@dataclass(frozen=True)
class IgnoredWeights:
    """Patterns of the names that transformers' class for a config.json leaves unread."""

    next_token: tuple[str, ...]
    others: tuple[str, ...]
    shares_layers: bool

    def is_next_token(self, name: str) -> bool:
        """Whether a tensor that is not declared is of a next-token module."""
        return any(re.search(pattern, name) for pattern in self.next_token)

    def is_other(self, name: str, declared: Container[str]) -> bool:
        """Whether a tensor that is not ``declared`` is ignored for another reason."""
        if any(re.search(pattern, name) for pattern in self.others):
            return True
        match = _KEYS_AND_VALUES.fullmatch(name) if self.shares_layers else None
        if match is None:
            return False
        return f"{match[1]}q_proj.weight" in declared and f"{match[1]}k_proj.weight" not in declared


def ignored_weights(config: Mapping[str, Any]) -> IgnoredWeights:
    """Those of a config.json's class, and of the parts that it has."""
    parts = [config, *(part for part in config.values() if isinstance(part, Mapping))]
    kinds = [kind for part in parts if isinstance(kind := part.get("model_type"), str)]
    return IgnoredWeights(
        tuple(pattern for kind in kinds for pattern in _NEXT_TOKEN.get(kind, ())),
        tuple(p for key in (*kinds, class_name_of(config)) for p in _OTHERS.get(key, ())),
        any(kind in SHARING for kind in kinds),
    )
