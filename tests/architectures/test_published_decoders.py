"""Models of 2024 to 2026 against the number of elements that the Hub reads from the headers of their files.

That is `safetensors.total` of huggingface.co/api/models/NAME, which has buffers and modules for multi-token
prediction too.
"""

from __future__ import annotations

from typing import Any

import pytest

from minilm.architectures import layout_of

Config = dict[str, Any]

GLM_4_5: Config = {"model_type": "glm4_moe", "head_dim": 128, "attention_bias": True}
GRANITE_MOE: Config = {
    "model_type": "granitemoe",
    "num_key_value_heads": 8,
    "intermediate_size": 512,
    "num_experts_per_tok": 8,
    "vocab_size": 49155,
    "tie_word_embeddings": True,
}
LLAMA_4: Config = {
    "model_type": "llama4",
    "architectures": ["Llama4ForConditionalGeneration"],
    "vision_config": {"hidden_size": 1408, "image_size": 336, "vision_output_dim": 4096},
}
OLMO_3: Config = {"model_type": "olmo3", "vocab_size": 100278}

PUBLISHED: dict[str, tuple[Config, int]] = {
    "zai-org/GLM-4.5": (
        GLM_4_5
        | {
            "hidden_size": 5120,
            "num_hidden_layers": 92,
            "intermediate_size": 12288,
            "moe_intermediate_size": 1536,
            "n_routed_experts": 160,
            "first_k_dense_replace": 3,
            "use_qk_norm": True,
        },
        358_337_791_296,
    ),
    "zai-org/GLM-4.5-Air": (GLM_4_5, 110_468_824_832),
    "zai-org/GLM-5.3": (
        {"model_type": "glm_moe_dsa", "num_nextn_predict_layers": 1, "index_topk_freq": 4},
        753_329_940_480,
    ),
    "zai-org/GLM-4-9B-0414": ({"model_type": "glm4"}, 9_400_279_040),
    "meta-llama/Llama-4-Scout-17B-16E": (LLAMA_4, 108_641_793_536),
    "meta-llama/Llama-4-Maverick-17B-128E": (
        LLAMA_4 | {"text_config": {"num_local_experts": 128, "interleave_moe_layer_step": 2}},
        401_583_781_376,
    ),
    "ibm-granite/granite-3.1-1b-a400m": (
        GRANITE_MOE
        | {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_local_experts": 32,
        },
        1_334_628_352,
    ),
    "ibm-granite/granite-3.1-3b-a800m": (
        GRANITE_MOE | {"hidden_size": 1536, "num_attention_heads": 24, "num_local_experts": 40},
        3_298_793_472,
    ),
    "allenai/Olmo-3-1025-7B": (OLMO_3, 7_298_011_136),
    "allenai/Olmo-3-1125-32B": (
        OLMO_3
        | {
            "hidden_size": 5120,
            "num_hidden_layers": 64,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "intermediate_size": 27648,
        },
        32_233_522_176,
    ),
    "allenai/OLMoE-1B-7B-0924": (
        {"model_type": "olmoe", "intermediate_size": 1024},
        6_919_161_856,
    ),
    "ByteDance-Seed/Seed-OSS-36B": (
        {"model_type": "seed_oss", "hidden_size": 5120},
        36_151_104_512,
    ),
    "MiniMaxAI/MiniMax-M2": ({"model_type": "minimax_m2"}, 228_689_764_864),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_element_of_the_files_is_accounted_for(name: str) -> None:
    config, published = PUBLISHED[name]
    layout = layout_of(config)
    others = sum(layout.value(tensor) for tensor in (*layout.buffers, *layout.mtp))
    assert layout.count() + others == published
