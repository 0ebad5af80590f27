"""Delta nets and short convolutions between attention: how llama.cpp converts them."""

from __future__ import annotations

from typing import Any

from tests.architectures.gguf_conversions import FLAG, WIDTH, Config, Conversion, Edit, renamed
from tests.architectures.gguf_rules import (
    CONVOLUTION,
    EXPERT_BIAS,
    EXPERT_WIDTH,
    W_EXPERTS,
    layer_kinds,
    where,
)


def qwen_state(config: Config) -> Config:
    """Heads of values are a multiple of those of keys."""
    return {"linear_num_value_heads": 2 * config["linear_num_key_heads"], "num_hidden_layers": 5}


def squeezed_delta() -> dict[str, Edit]:
    """qwen.py"""
    return {**CONVOLUTION, "dt_bias": renamed("dt_proj.bias")}


QWEN_OPTIONS = {
    "linear_conv_kernel_dim": range(2, 5),
    "linear_key_head_dim": WIDTH,
    "linear_value_head_dim": WIDTH,
    "linear_num_key_heads": range(1, 4),
    "full_attention_interval": range(2, 5),
    "attention_bias": FLAG,
}

QWEN_KEYS: dict[str, Any] = {
    "ssm_conv_kernel": "linear_conv_kernel_dim",
    "ssm_state_size": "linear_key_head_dim",
    "ssm_group_count": "linear_num_key_heads",
    "ssm_time_step_rank": "linear_num_value_heads",
    "ssm_inner_size": lambda c: c["linear_value_head_dim"] * c["linear_num_value_heads"],
    "full_attention_interval": "full_attention_interval",
}

QWEN_EXPERTS = {"moe_intermediate_size": WIDTH, "shared_expert_intermediate_size": WIDTH}

QWEN_EXPERT_KEYS: dict[str, Any] = {
    **EXPERT_WIDTH,
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}

LFM_KEYS: dict[str, Any] = {
    "head_count_kv": where("layer_types", "full_attention", "num_key_value_heads"),
    "shortconv_l_cache": "conv_L_cache",
    "vocab_size": "vocab_size",
}

LFM_OPTIONS = {"conv_L_cache": range(2, 6), "tie_word_embeddings": True}

LFM_EDITS = {"conv.conv.weight": renamed("conv.conv.weight", squeezed=True)}


CONVERSIONS: dict[str, Conversion] = {
    "lfm2": Conversion(
        "lfm2",
        {**LFM_OPTIONS, "block_auto_adjust_ff_dim": False},
        LFM_KEYS,
        LFM_EDITS,
        derived=lambda config: {
            "layer_types": (kinds := layer_kinds(config, "conv", "full_attention")),
            "num_hidden_layers": len(kinds),
        },
    ),
    "lfm2_moe": Conversion(
        "lfm2moe",
        {
            **LFM_OPTIONS,
            "num_dense_layers": range(2),
            "use_expert_bias": FLAG,
            "moe_intermediate_size": WIDTH,
        },
        {**LFM_KEYS, **EXPERT_WIDTH, "leading_dense_block_count": "num_dense_layers"},
        {
            **LFM_EDITS,
            **EXPERT_BIAS,
        },
        experts="num_experts",
        renames=W_EXPERTS,
        derived=lambda config: {
            "layer_types": (kinds := layer_kinds(config, "conv", "full_attention")),
            "num_hidden_layers": len(kinds),
        },
    ),
    "qwen3_5_moe_text": Conversion(
        "qwen35moe",
        {**QWEN_OPTIONS, **QWEN_EXPERTS},
        {**QWEN_KEYS, **QWEN_EXPERT_KEYS, "feed_forward_length": None},
        squeezed_delta(),
        head_dim=True,
        experts="num_experts",
        derived=qwen_state,
    ),
    "qwen3_5_text": Conversion(
        "qwen35", QWEN_OPTIONS, QWEN_KEYS, squeezed_delta(), head_dim=True, derived=qwen_state
    ),
    "qwen3_next of 2025": Conversion(
        "qwen3next",
        {**QWEN_OPTIONS, **QWEN_EXPERTS, "full_attention_interval": 4},
        {**QWEN_KEYS, **QWEN_EXPERT_KEYS, "full_attention_interval": None},
        squeezed_delta(),
        head_dim=True,
        experts="num_experts",
        derived=qwen_state,
        model_type="qwen3_next",
    ),
    "qwen3_next": Conversion(
        "qwen3next",
        {**QWEN_OPTIONS, **QWEN_EXPERTS},
        {**QWEN_KEYS, **QWEN_EXPERT_KEYS},
        {
            **squeezed_delta(),
            # Stands under GGUF's own names at once.
            "in_proj_qkvz.weight": lambda shape, config: {
                "in_proj_qkv.weight": (
                    shape[0] - config["linear_num_value_heads"] * config["linear_value_head_dim"],
                    shape[1],
                ),
                "in_proj_z.weight": (
                    config["linear_num_value_heads"] * config["linear_value_head_dim"],
                    shape[1],
                ),
            },
        },
        head_dim=True,
        experts="num_experts",
        derived=qwen_state,
    ),
}
