"""Mamba and its hybrids: how llama.cpp converts them."""

from __future__ import annotations

from typing import Any

from tests.architectures.gguf_conversions import (
    FLAG,
    WIDTH,
    Conversion,
    Edit,
    grouped,
    renamed,
    split,
)
from tests.architectures.gguf_rules import (
    CONVOLUTION,
    CORRECTION,
    EXPERT_WIDTH,
    GRANITE,
    MAMBA2,
    layer_kinds,
    where,
)

SSM: dict[str, Any] = {
    "ssm_conv_kernel": "conv_kernel",
    "ssm_state_size": "state_size",
    "ssm_inner_size": lambda config: 2 * config["hidden_size"],
}

NO_ATTENTION: dict[str, Any] = {
    "context_length": lambda config: 2**20,
    "feed_forward_length": lambda config: 0,
    "head_count": lambda config: 0,
    "head_count_kv": None,
}

HYBRID: dict[str, Any] = {
    "ssm_conv_kernel": "mamba_d_conv",
    "ssm_state_size": "mamba_d_state",
    "ssm_group_count": "mamba_n_groups",
    "ssm_time_step_rank": "mamba_n_heads",
}

HYBRID_OPTIONS = {
    "mamba_d_conv": range(2, 5),
    "mamba_d_state": WIDTH,
    "mamba_n_groups": range(1, 3),
    "mamba_conv_bias": FLAG,
    "mamba_proj_bias": FLAG,
}

NEMOTRON_OPTIONS: dict[str, Any] = {
    "conv_kernel": range(2, 5),
    "ssm_state_size": WIDTH,
    "n_groups": range(1, 3),
    "mamba_num_heads": (2, 4),
    "mamba_head_dim": range(1, 5),
    "use_bias": FLAG,
    "use_conv_bias": FLAG,
    "tie_word_embeddings": False,
}

NEMOTRON_KEYS: dict[str, Any] = {
    "ssm_conv_kernel": "conv_kernel",
    "ssm_state_size": "ssm_state_size",
    "ssm_group_count": "n_groups",
    "ssm_time_step_rank": "mamba_num_heads",
    "ssm_inner_size": lambda config: config["mamba_num_heads"] * config["mamba_head_dim"],
    "head_count_kv": where("layers_block_type", "full_attention", "num_key_value_heads"),
}

# nemotron.py
NEMOTRON_EDITS: dict[str, Edit] = {
    **MAMBA2,
    "dt_bias": renamed("dt.bias"),
    "mixer.norm.weight": lambda shape, config: {
        f"mixer.{name}": new for name, new in grouped("n_groups")(shape, config).items()
    },
}


CONVERSIONS: dict[str, Conversion] = {
    "falcon_h1": Conversion(
        "falcon-h1",
        {
            **HYBRID_OPTIONS,
            "mamba_rms_norm": FLAG,
            "projectors_bias": FLAG,
            "mamba_n_heads": (2, 4),
        },
        {**HYBRID, "vocab_size": "vocab_size", "ssm_inner_size": "mamba_d_ssm"},
        {
            **MAMBA2,
            "mamba.norm.weight": lambda shape, config: {
                f"mamba.{name}": new
                for name, new in grouped("mamba_n_groups")(shape, config).items()
            },
        },
        head_dim=True,
        derived=lambda config: {"mamba_d_ssm": 8 * config["mamba_n_heads"]},
    ),
    "nemotron_h": Conversion(
        "nemotron_h",
        NEMOTRON_OPTIONS,
        {
            **NEMOTRON_KEYS,
            "feed_forward_length": where("layers_block_type", "mlp", "intermediate_size"),
        },
        NEMOTRON_EDITS,
        head_dim=True,
        derived=lambda config: {
            "layers_block_type": (
                kinds := layer_kinds(config, "linear_attention", "full_attention", "mlp")
            ),
            "num_hidden_layers": len(kinds),
        },
    ),
    "nemotron_h with experts": Conversion(
        "nemotron_h_moe",
        {
            **NEMOTRON_OPTIONS,
            "moe_intermediate_size": WIDTH,
            "moe_shared_expert_intermediate_size": WIDTH,
            "moe_latent_size": (None, 6),
        },
        {
            **NEMOTRON_KEYS,
            **EXPERT_WIDTH,
            "feed_forward_length": where("layers_block_type", "moe", "moe_intermediate_size"),
            "expert_shared_feed_forward_length": "moe_shared_expert_intermediate_size",
            "expert_count": "n_routed_experts",
            "moe_latent_size": "moe_latent_size",
        },
        {
            **NEMOTRON_EDITS,
            **CORRECTION,
        },
        head_dim=True,
        experts="n_routed_experts",
        derived=lambda config: {
            "layers_block_type": (
                kinds := layer_kinds(config, "linear_attention", "full_attention", "moe")
            ),
            "num_hidden_layers": len(kinds),
        },
        model_type="nemotron_h",
        renames=((r"backbone(.*)mixer\.experts", r"model\1mlp.experts"),),
    ),
    "falcon_mamba": Conversion(
        "mamba",
        {"conv_kernel": range(2, 5), "state_size": WIDTH, "time_step_rank": WIDTH},
        {**SSM, **NO_ATTENTION, "ssm_time_step_rank": "time_step_rank"},
        CONVOLUTION,
        derived=lambda config: {"intermediate_size": 2 * config["hidden_size"]},
    ),
    "granitemoehybrid": Conversion(
        "granitehybrid",
        {
            **HYBRID_OPTIONS,
            "attention_bias": FLAG,
            "mamba_expand": 2,
            "shared_intermediate_size": WIDTH,
            "num_local_experts": (0, 2, 4),
            "num_experts_per_tok": 2,
        },
        {
            **HYBRID,
            "vocab_size": "vocab_size",
            "ssm_inner_size": lambda config: 2 * config["hidden_size"],
            "head_count_kv": where("layer_types", "attention", "num_key_value_heads"),
            "expert_shared_feed_forward_length": "shared_intermediate_size",
        },
        {
            **MAMBA2,
            "mamba.norm.weight": lambda shape, config: {
                f"mamba.{name}": new
                for name, new in grouped("mamba_n_groups")(shape, config).items()
            },
            "block_sparse_moe.input_linear.weight": GRANITE["block_sparse_moe.input_linear.weight"],
            "shared_mlp.input_linear.weight": lambda shape, config: split(
                -2,
                *(
                    f"mlp.{'shared_expert.' if config['num_local_experts'] else ''}{each}_proj.weight"
                    for each in ("gate", "up")
                ),
            )(shape, config),
            "shared_mlp.output_linear.weight": lambda shape, config: {
                (
                    "shared_mlp.output_linear.weight"
                    if config["num_local_experts"]
                    else "mlp.down_proj.weight"
                ): shape
            },
        },
        derived=lambda config: {
            "layer_types": (kinds := layer_kinds(config, "mamba", "attention")),
            "num_hidden_layers": len(kinds),
            "mamba_n_heads": config["num_attention_heads"],
        },
    ),
    "jamba": Conversion(
        "jamba",
        {
            "mamba_d_conv": range(2, 5),
            "mamba_d_state": WIDTH,
            "mamba_dt_rank": WIDTH,
            "mamba_expand": 2,
            "mamba_conv_bias": FLAG,
            "mamba_proj_bias": FLAG,
            "attn_layer_period": 3,
            "attn_layer_offset": range(3),
            "expert_layer_period": 2,
            "expert_layer_offset": range(2),
            "num_hidden_layers": range(4, 8),
        },
        {
            "ssm_conv_kernel": "mamba_d_conv",
            "ssm_state_size": "mamba_d_state",
            "ssm_time_step_rank": "mamba_dt_rank",
            "ssm_inner_size": lambda config: 2 * config["hidden_size"],
            "head_count_kv": lambda config: [
                config["num_key_value_heads"] if i % 3 == config["attn_layer_offset"] else 0
                for i in range(config["num_hidden_layers"])
            ],
        },
        {
            **CONVOLUTION,
        },
        experts="num_experts",
        renames=((r"feed_forward\.experts", "mlp.experts"),),
    ),
    "mamba": Conversion(
        "mamba",
        {
            "conv_kernel": range(2, 5),
            "state_size": WIDTH,
            "time_step_rank": WIDTH,
            "use_bias": FLAG,
            "use_conv_bias": FLAG,
        },
        {**SSM, **NO_ATTENTION, "ssm_time_step_rank": "time_step_rank"},
        CONVOLUTION,
        derived=lambda config: {"intermediate_size": 2 * config["hidden_size"]},
    ),
    "mamba2": Conversion(
        "mamba2",
        {
            "conv_kernel": range(2, 5),
            "state_size": WIDTH,
            "n_groups": range(1, 3),
            "use_bias": FLAG,
            "use_conv_bias": FLAG,
            "expand": 2,
        },
        {
            **SSM,
            **NO_ATTENTION,
            "ssm_time_step_rank": "num_heads",
            "ssm_group_count": "n_groups",
            "key_length": None,
            "value_length": None,
        },
        {
            **MAMBA2,
            "mixer.norm.weight": lambda shape, config: {
                f"mixer.{name}": new for name, new in grouped("n_groups")(shape, config).items()
            },
        },
        derived=lambda config: {
            "num_heads": config["num_attention_heads"],
            "head_dim": 2 * config["hidden_size"] // config["num_attention_heads"],
        },
    ),
}
