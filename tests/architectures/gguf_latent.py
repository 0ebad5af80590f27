"""Multi-head latent attention, and Gemma 3n: how llama.cpp converts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.architectures.gguf_conversions import (
    EVEN,
    FLAG,
    WIDTH,
    Config,
    Conversion,
    dropped,
    latents,
    renamed,
)
from tests.architectures.gguf_rules import (
    CORRECTION,
    DENSE_FIRST,
    EXPERT_WIDTH,
    LATENT,
    VOCABULARY,
    all_heads,
    layer_kinds,
    where,
)

# deepseek.py
DEEPSEEK2 = Conversion(
    "deepseek2",
    LATENT
    | {
        "q_lora_rank": (None, 6, 10),
        "moe_intermediate_size": WIDTH,
        "n_shared_experts": range(1, 3),
        "first_k_dense_replace": range(2),
        "attention_bias": FLAG,
        "num_nextn_predict_layers": 0,
    },
    {
        **EXPERT_WIDTH,
        **DENSE_FIRST,
        **VOCABULARY,
        "head_count_kv": lambda config: 1,
        "q_lora_rank": "q_lora_rank",
        "kv_lora_rank": "kv_lora_rank",
        "key_length": lambda config: config["kv_lora_rank"] + config["qk_rope_head_dim"],
        "value_length": "kv_lora_rank",
        "key_length_mla": lambda c: c["qk_nope_head_dim"] + c["qk_rope_head_dim"],
        "value_length_mla": "v_head_dim",
        "expert_count": "n_routed_experts",
        "expert_shared_count": "n_shared_experts",
        "rope_dimension_count": "qk_rope_head_dim",
    },
    CORRECTION | {"kv_b_proj.weight": latents},
    experts="n_routed_experts",
    derived=lambda config: all_heads(config) | {"q_lora_rank": config["q_lora_rank"]},
)


def kimi_layers(config: Config) -> Config:
    """Both kinds, that `linear_attn_config` lists from 1."""
    kinds = layer_kinds(config, "full_attention", "linear_attention")
    numbers = {each: [i for i, kind in enumerate(kinds, 1) if kind == each] for each in kinds}
    return {
        "layer_types": kinds,
        "num_hidden_layers": len(kinds),
        "num_key_value_heads": 1,
        "linear_attn_config": {
            "full_attn_layers": numbers["full_attention"],
            "kda_layers": numbers["linear_attention"],
            "num_heads": config["num_attention_heads"],
            "head_dim": config["head_dim"] + 3,
            "short_conv_kernel_size": 2 + config["head_dim"] % 3,
        },
    }


# kimi_linear.py
KIMI = replace(
    DEEPSEEK2,
    architecture="kimi-linear",
    options={
        **LATENT,
        "q_lora_rank": (None, 6, 10),
        "moe_intermediate_size": WIDTH,
        "num_shared_experts": range(1, 3),
        "first_k_dense_replace": range(2),
        "tie_word_embeddings": False,
    },
    keys={
        **DEEPSEEK2.keys,
        "head_count_kv": where("layer_types", "full_attention", "num_key_value_heads"),
        # As the base class has it.
        "value_length": "head_dim",
        "expert_count": "num_experts",
        "expert_shared_count": "num_shared_experts",
        "ssm_conv_kernel": lambda config: config["linear_attn_config"]["short_conv_kernel_size"],
        "kda_head_dim": lambda config: config["linear_attn_config"]["head_dim"],
    },
    edits={
        **DEEPSEEK2.edits,
        "conv1d.weight": lambda shape, config: {"conv1d.weight": (1, shape[0], 1, shape[2])},
        "dt_bias": renamed("dt_proj.bias"),
    },
    head_dim=True,
    experts="num_experts",
    derived=kimi_layers,
    # As the release names those of the first layers.
    renames=((r"block_sparse_moe\.(gate|up|down)_proj", r"mlp.\1_proj"),),
)


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


def gemma4_layers(*, shared: int, all_keys: bool = False) -> Callable[[Config], Config]:
    """Each kind twice, so that ``shared`` of them can take keys and values of others."""
    layers = gemma3n_layers(all_keys=all_keys)
    return lambda config: (
        layers(config)
        | {
            "num_kv_shared_layers": 0 if all_keys else shared,
            "hidden_size_per_layer_input": 6 if shared else 0,
        }
    )


def gemma4(shared: int = 0, *, all_keys: bool = False, **options: Any) -> Conversion:
    """gemma.py"""
    return Conversion(
        "gemma4",
        {
            "tie_word_embeddings": True,
            "sliding_window": 4,
            "global_head_dim": (4, 12),
            **options,
        },
        {
            **EXPERT_WIDTH,
            "embedding_length_per_layer_input": "hidden_size_per_layer_input",
            "shared_kv_layers": lambda config: shared,
            "sliding_window": "sliding_window",
            "sliding_window_pattern": GEMMA3N.keys["sliding_window_pattern"],
            "key_length": "global_head_dim",
            "value_length": "global_head_dim",
            "key_length_swa": "head_dim",
            "value_length_swa": "head_dim",
            "expert_used_count": "top_k_experts",
            "feed_forward_length": lambda config: (
                [config["intermediate_size"] * (1 + (i >= 4 - shared)) for i in range(4)]
                if config.get("use_double_wide_mlp")
                else config["intermediate_size"]
            ),
            "head_count_kv": lambda config: (
                [
                    config["num_key_value_heads" if slides else "num_global_key_value_heads"]
                    for slides in (True, False, True, False)
                ]
                if config.get("num_global_key_value_heads")
                else config["num_key_value_heads"]
            ),
        },
        {
            "layer_scalar": renamed("layer_scalar.weight"),
            "router.scale": renamed("router.proj.scale"),
            "router.per_expert_scale": renamed("experts.down_proj.scale"),
            "experts.gate_up_proj": renamed("experts.gate_up_proj.weight"),
            "experts.down_proj": renamed("experts.down_proj.weight"),
        },
        head_dim=True,
        derived=gemma4_layers(shared=shared, all_keys=all_keys),
        model_type="gemma4_text",
    )


CONVERSIONS: dict[str, Conversion] = {
    "deepseek_v2": DEEPSEEK2,
    "deepseek_v3": DEEPSEEK2,
    # Before multi-head latent attention was absorbed.
    "deepseek_v2 of 2024": replace(
        DEEPSEEK2,
        keys={
            **{name: key for name, key in DEEPSEEK2.keys.items() if not name.endswith("_mla")},
            "head_count_kv": "num_attention_heads",
            "key_length": lambda c: c["qk_nope_head_dim"] + c["qk_rope_head_dim"],
            "value_length": "v_head_dim",
        },
        edits=CORRECTION,
        model_type="deepseek_v2",
    ),
    "glm4_moe_lite": DEEPSEEK2,
    "glm_moe_dsa": replace(
        DEEPSEEK2,
        architecture="glm-dsa",
        options={
            **DEEPSEEK2.options,
            "q_lora_rank": (6, 10),
            "index_n_heads": range(1, 4),
            "index_head_dim": EVEN,
            "index_topk": 4,
        },
        keys={
            **DEEPSEEK2.keys,
            "indexer_head_count": "index_n_heads",
            "indexer_key_length": "index_head_dim",
            "indexer_top_k": "index_topk",
        },
    ),
    "kimi_linear": KIMI,
    # mistral3.py
    "mistral4": replace(
        DEEPSEEK2,
        architecture="mistral4",
        edits={
            **DEEPSEEK2.edits,
            "experts.gate_up_proj": renamed("experts.gate_up_proj.weight"),
            "experts.down_proj": renamed("experts.down_proj.weight"),
        },
    ),
    "youtu": replace(
        DEEPSEEK2,
        options={**LATENT, "q_lora_rank": (None, 6, 10), "attention_bias": FLAG},
        keys={
            **DEEPSEEK2.keys,
            "expert_feed_forward_length": "intermediate_size",
            "expert_count": None,
            "expert_shared_count": lambda config: 0,
            "leading_dense_block_count": "num_hidden_layers",
        },
        experts="",
    ),
    "gemma3n_text": GEMMA3N,
    "gemma4_text": gemma4(2, use_double_wide_mlp=FLAG),
    "gemma4_text with all keys": gemma4(2, all_keys=True),
    "gemma4_text with equal keys and values": gemma4(
        attention_k_eq_v=True, num_global_key_value_heads=1
    ),
    "gemma4_text with experts": gemma4(
        enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=WIDTH
    ),
    "gemma3n_text of transformers 4": replace(GEMMA3N, derived=gemma3n_layers(all_keys=True)),
}
