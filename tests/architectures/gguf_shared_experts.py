"""Mixtures of experts with some that all tokens share: how llama.cpp converts them."""

from __future__ import annotations

from dataclasses import replace

from tests.architectures.gguf_conversions import (
    FLAG,
    WIDTH,
    Conversion,
    queries_keys_values,
)
from tests.architectures.gguf_rules import (
    CORRECTION,
    DENSE_FIRST,
    EXPERT_BIAS,
    EXPERT_WIDTH,
    GRANITE,
    VOCABULARY,
)

DEEPSEEK = Conversion(
    "deepseek",
    {
        "moe_intermediate_size": WIDTH,
        "n_shared_experts": range(1, 3),
        "first_k_dense_replace": range(2),
    },
    {
        **EXPERT_WIDTH,
        **DENSE_FIRST,
        **VOCABULARY,
        "expert_count": "n_routed_experts",
        "expert_shared_count": "n_shared_experts",
    },
    experts="n_routed_experts",
)

CONVERSIONS: dict[str, Conversion] = {
    "afmoe": Conversion(
        "afmoe",
        {
            "num_shared_experts": range(1, 3),
            "moe_intermediate_size": WIDTH,
            "num_dense_layers": range(2),
            "sliding_window": 4,
        },
        {
            **EXPERT_WIDTH,
            "expert_shared_count": "num_shared_experts",
            "leading_dense_block_count": "num_dense_layers",
            "sliding_window": "sliding_window",
        },
        EXPERT_BIAS,
        head_dim=True,
        experts="num_experts",
    ),
    "bailing_moe": Conversion(
        "bailingmoe",
        {
            "moe_intermediate_size": WIDTH,
            "num_shared_experts": range(1, 3),
            "first_k_dense_replace": 0,
        },
        {**EXPERT_WIDTH, **DENSE_FIRST, **VOCABULARY, "expert_shared_count": "num_shared_experts"},
        {
            "attention.query_key_value.weight": queries_keys_values(
                *(f"self_attn.{each}_proj.weight" for each in "qkv")
            )
        },
        experts="num_experts",
        derived=lambda config: {"intermediate_size": config["moe_intermediate_size"]},
    ),
    "deepseek": DEEPSEEK,
    # deepseek.py: pages' text has plain heads.
    "DeepSeek-OCR's text": replace(DEEPSEEK, architecture="deepseek2-ocr", model_type="deepseek"),
    "dots1": Conversion(
        "dots1",
        {
            "moe_intermediate_size": WIDTH,
            "n_shared_experts": range(1, 3),
            "first_k_dense_replace": range(2),
            "attention_bias": FLAG,
        },
        {
            **EXPERT_WIDTH,
            **DENSE_FIRST,
            "expert_count": "n_routed_experts",
            "expert_shared_count": "n_shared_experts",
        },
        CORRECTION,
        head_dim=True,
        experts="n_routed_experts",
    ),
    "glm4_moe": Conversion(
        "glm4moe",
        {
            "attention_bias": FLAG,
            "use_qk_norm": FLAG,
            "moe_intermediate_size": WIDTH,
            "n_shared_experts": range(1, 3),
            "first_k_dense_replace": range(2),
            "num_nextn_predict_layers": 0,
        },
        {
            **EXPERT_WIDTH,
            **DENSE_FIRST,
            "expert_count": "n_routed_experts",
            "expert_shared_count": "n_shared_experts",
        },
        CORRECTION,
        head_dim=True,
        experts="n_routed_experts",
    ),
    "granitemoeshared": Conversion(
        "granitemoe",
        {"attention_bias": FLAG, "shared_intermediate_size": WIDTH},
        {**VOCABULARY, "expert_shared_feed_forward_length": "shared_intermediate_size"},
        GRANITE,
        experts="num_local_experts",
    ),
    "hunyuan_v1_moe": Conversion(
        "hunyuan-moe",
        {"attention_bias": FLAG},
        {
            "expert_shared_feed_forward_length": "intermediate_size",
            "expert_feed_forward_length": "intermediate_size",
            "expert_used_count": "num_experts_per_tok",
            "expert_shared_count": lambda config: 1,
        },
        experts="num_experts",
        derived=lambda c: {"moe_topk": [c["num_experts_per_tok"]] * c["num_hidden_layers"]},
    ),
    "qwen2_moe": Conversion(
        "qwen2moe",
        {
            "moe_intermediate_size": WIDTH,
            "shared_expert_intermediate_size": WIDTH,
            "qkv_bias": FLAG,
        },
        {**EXPERT_WIDTH, "expert_shared_feed_forward_length": "shared_expert_intermediate_size"},
        experts="num_experts",
    ),
    "solar_open": Conversion(
        "glm4moe",
        {
            "moe_intermediate_size": WIDTH,
            "n_shared_experts": range(1, 3),
            "first_k_dense_replace": 0,
        },
        {
            **EXPERT_WIDTH,
            **DENSE_FIRST,
            "expert_count": "n_routed_experts",
            "expert_shared_count": "n_shared_experts",
        },
        CORRECTION,
        head_dim=True,
        experts="n_routed_experts",
    ),
    "bailing_moe_v2": Conversion(
        "bailingmoe2",
        {
            "moe_intermediate_size": WIDTH,
            "num_shared_experts": range(1, 3),
            "first_k_dense_replace": range(2),
            "use_qkv_bias": FLAG,
            "num_nextn_predict_layers": 0,
            "n_group": 1,
        },
        {
            **EXPERT_WIDTH,
            **DENSE_FIRST,
            **VOCABULARY,
            "expert_shared_count": "num_shared_experts",
            "expert_shared_feed_forward_length": lambda config: (
                config["moe_intermediate_size"] * config["num_shared_experts"]
            ),
        },
        EXPERT_BIAS,
        head_dim=True,
        experts="num_experts",
    ),
    "ernie4_5_moe": Conversion(
        "ernie4_5-moe",
        {
            "use_bias": FLAG,
            "moe_intermediate_size": WIDTH,
            "moe_num_shared_experts": range(1, 3),
            "moe_layer_interval": range(1, 3),
            "moe_layer_start_index": range(2),
            "moe_k": 1,
        },
        {
            **EXPERT_WIDTH,
            "expert_count": "moe_num_experts",
            "expert_used_count": "moe_k",
            "expert_shared_count": "moe_num_shared_experts",
            "interleave_moe_layer_step": "moe_layer_interval",
            "leading_dense_block_count": "moe_layer_start_index",
        },
        CORRECTION,
        head_dim=True,
        experts="moe_num_experts",
    ),
    "exaone_moe": Conversion(
        "exaone-moe",
        {
            "moe_intermediate_size": WIDTH,
            "num_shared_experts": range(1, 3),
            "first_k_dense_replace": range(2),
            "sliding_window": 4,
        },
        {
            **EXPERT_WIDTH,
            **DENSE_FIRST,
            **VOCABULARY,
            "expert_shared_count": "num_shared_experts",
            "sliding_window": "sliding_window",
        },
        CORRECTION,
        head_dim=True,
        experts="num_experts",
    ),
}
