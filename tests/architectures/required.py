"""Configurations of a type that say no more than is needed."""

from __future__ import annotations

from typing import Any

from tests.architectures.draws_decoders import DRAWS

# Fields that a type's configuration class gives no usable default.
REQUIRED: dict[str, dict[str, Any]] = {
    "nemotron": {"num_key_value_heads": 48},
    "ministral": {"head_dim": 128},
    "dots1": {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1},
    # Equal parts, as transformers divides the one convolution into equal thirds when it writes it.
    "olmo_hybrid": {"linear_key_head_dim": 96, "linear_value_head_dim": 96},
    "lfm2_moe": {"layer_types": ["full_attention"] * 32},
    "dbrx": {"attn_config": {"rope_theta": 1e4}},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "diffusion_gemma": {
        "text_config": {"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 704}
    },
    "granite4_vision": {"downsample_rate": "4/8"},
    "minicpmv": {"version": 2.6},
    "qwen3_omni_moe": {
        "talker_config": {
            "spatial_merge_size": 2,
            "text_config": {"shared_expert_intermediate_size": 768},
        }
    },
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
}


def shallow(model_type: str) -> dict[str, Any]:
    """The defaults of a type; those of `draws_decoders.py` with few layers, as some have 50,000 tensors."""
    config = {"model_type": model_type} | REQUIRED.get(model_type, {})
    few = {"num_hidden_layers": 6, "num_layers": 6}
    few |= {"n_input_layers": 2, "n_output_layers": 2}  # Dory's, of those
    return config | few if model_type in DRAWS else config
