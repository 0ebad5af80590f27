"""Those with a state, and encoders: how llama.cpp converts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

from tests.architectures.gguf_conversions import (
    FLAG,
    WIDTH,
    Config,
    Conversion,
    Edit,
    dropped,
    grouped,
    renamed,
    split,
)
from tests.architectures.gguf_types import CORRECTION, EXPERT_BIAS, EXPERT_WIDTH, GRANITE, W_EXPERTS

# mamba.py, and granite.py and nemotron.py after it.
CONVOLUTION = {"conv1d.weight": renamed("conv1d.weight", squeezed=True)}
MAMBA2: Mapping[str, Edit] = {
    **CONVOLUTION,
    "dt_bias": renamed("dt_proj.bias"),
    "A_log": renamed("A_log", stacked=True),
    ".D": renamed(".D", stacked=True),
}
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


def layer_kinds(config: Config, *names: str) -> list[str]:
    """Each kind in one of the layers, and the others at random, the same for a config."""
    random = Random(str(config))
    number = max(len(names), config["num_hidden_layers"])
    kinds = [*names, *(random.choice(names) for _ in range(number - len(names)))]
    random.shuffle(kinds)
    return kinds


def where(field: str, kind: str, value: str) -> Callable[[Config], list[int]]:
    """The number in the layers of a kind, and 0 in the others."""
    return lambda config: [config[value] if each == kind else 0 for each in config[field]]


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
T5_OPTIONS = {
    "d_kv": range(2, 9),
    "num_decoder_layers": range(1, 3),
    "relative_attention_num_buckets": range(2, 9),
    "num_layers": range(2, 4),
}
T5_KEYS: dict[str, Any] = {
    "block_count": "num_layers",
    "feed_forward_length": "d_ff",
    "decoder_block_count": "num_decoder_layers",
    "head_count": "num_heads",
    "head_count_kv": None,
    "key_length": "d_kv",
    "value_length": "d_kv",
    "relative_attn_buckets_count": "relative_attention_num_buckets",
}


def t5_names(config: Config) -> Config:
    """The widths under T5's names."""
    return {
        "d_model": config["hidden_size"],
        "d_ff": config["intermediate_size"],
        "num_heads": config["num_attention_heads"],
        "feed_forward_proj": "relu" if config["model_type"] == "t5" else "gated-gelu",
    }


def t5(**more: Any) -> Conversion:
    """t5.py"""
    return Conversion("t5", T5_OPTIONS, T5_KEYS, derived=t5_names, **more)


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


def gemma3n_layers(*, all_keys: bool) -> Callable[[Config], Config]:
    """Each kind twice, so that the last two can share; with ``all_keys`` they have own ones as well."""
    kinds = ["sliding_attention", "full_attention"] * 2
    return lambda config: {
        "layer_types": kinds,
        "num_hidden_layers": len(kinds),
        "num_kv_shared_layers": 0 if all_keys else 2,
        "vocab_size_per_layer_input": config["vocab_size"],
    }


# gemma.py
GEMMA3N = Conversion(
    "gemma3n",
    {
        "tie_word_embeddings": True,
        "altup_num_inputs": 4,
        "laurel_rank": WIDTH,
        "hidden_size_per_layer_input": WIDTH,
        "sliding_window": 4,
    },
    {
        "altup_num_inputs": "altup_num_inputs",
        "embedding_length_per_layer_input": "hidden_size_per_layer_input",
        "shared_kv_layers": lambda config: 2,
        "sliding_window": "sliding_window",
        "sliding_window_pattern": lambda config: [
            kind == "sliding_attention" for kind in config["layer_types"]
        ],
    },
    {
        "correct_output_scale": renamed("correct_output_scale.weight"),
        **{
            f"altup_{name}projections.{i}.weight": (
                dropped
                if i
                else lambda shape, config, name=name: {
                    f"altup_{name}projections.weight": (3, *shape)
                }
            )
            for name in ("", "unembed_")
            for i in range(3)
        },
    },
    head_dim=True,
    derived=gemma3n_layers(all_keys=False),
    model_type="gemma3n_text",
)


MORE_CONVERSIONS: dict[str, Conversion] = {
    "bert": Conversion(
        "bert",
        {"type_vocab_size": range(1, 3), "hidden_act": "gelu"},
        {"head_count_kv": None},
        {f"pooler.dense.{name}": dropped for name in ("weight", "bias")},
        classes=("BertModel",),
    ),
    "eurobert": Conversion("eurobert", classes=("EuroBertModel",)),
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
    "gemma3n_text": GEMMA3N,
    "gemma3n_text of transformers 4": replace(GEMMA3N, derived=gemma3n_layers(all_keys=True)),
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
    "jina_embeddings_v3": Conversion(
        "jina-bert-v3",
        {"type_vocab_size": range(1, 3)},
        {"head_count_kv": None},
        {f"pooler.dense.{name}": dropped for name in ("weight", "bias")},
        classes=("JinaEmbeddingsV3Model",),
    ),
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
    "modernbert": Conversion(
        "modern-bert",
        {},
        {"head_count_kv": None, "vocab_size": "vocab_size"},
        classes=("ModernBertModel",),
    ),
    "mt5": t5(),
    "nomic_bert": Conversion(
        "nomic-bert",
        {"type_vocab_size": range(1, 3)},
        {"head_count_kv": None},
        classes=("NomicBertModel",),
        derived=lambda config: {
            "n_embd": config["hidden_size"],
            "n_head": config["num_attention_heads"],
            "n_layer": config["num_hidden_layers"],
            "n_inner": config["intermediate_size"],
            "n_positions": config["max_position_embeddings"],
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
    "t5": t5(),
    "t5 without a decoder": Conversion(
        "t5encoder",
        T5_OPTIONS,
        {**T5_KEYS, "decoder_block_count": None},
        derived=lambda config: t5_names(config) | {"feed_forward_proj": "relu"},
        model_type="t5",
        classes=("T5EncoderModel",),
    ),
    "umt5": t5(),
}
