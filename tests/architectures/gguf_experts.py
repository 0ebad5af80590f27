"""Mixtures of experts whose keys tell of no shared ones: how llama.cpp converts them."""

from __future__ import annotations

from tests.architectures.gguf_conversions import (
    EVEN,
    FLAG,
    WIDTH,
    Conversion,
    renamed,
    split,
)
from tests.architectures.gguf_rules import (
    CORRECTION,
    EXPERT_WIDTH,
    GRANITE,
    SWAPPED,
    VOCABULARY,
    W_EXPERTS,
    experts_of,
)

# grok.py reads the names of the first release.
GROK = (
    (r"model\.embed_tokens", "transformer.in_out_embed"),
    (r"model\.norm", "transformer.rms_norm"),
    (r"model\.layers", "transformer.decoder_layer"),
    (r"moe_block\.gate", "router"),
    (r"moe_block\.experts", "moe"),
    *((f"pre_{name}_norm", f"rms_norm{i}") for name, i in (("attn", ""), ("moe", "_2"))),
    *((f"post_{name}_norm", f"rms_norm_{i}") for name, i in (("attn", 1), ("moe", 3))),
    *(
        (rf"attn\.{letter}_proj", f"multi_head_attention.{name}")
        for letter, name in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "linear"))
    ),
)

CONVERSIONS: dict[str, Conversion] = {
    "gpt_oss": Conversion(
        "gpt-oss",
        {"attention_bias": FLAG, "sliding_window": 4},
        {"expert_feed_forward_length": "intermediate_size", "sliding_window": "sliding_window"},
        {
            **SWAPPED,
            "self_attn.sinks": renamed("self_attn.sinks.weight"),
            "gate_up_proj_bias": split(-1, "gate_proj.bias", "up_proj.bias"),
            "down_proj_bias": renamed("down_proj.bias"),
        },
        head_dim=True,
        experts="num_local_experts",
    ),
    "granitemoe": Conversion(
        "granitemoe", {"attention_bias": FLAG}, VOCABULARY, GRANITE, experts="num_local_experts"
    ),
    "grok-1": Conversion("grok", experts="num_experts", renames=GROK),
    "llama4_text": Conversion(
        "llama4",
        {"interleave_moe_layer_step": range(1, 3), "intermediate_size_mlp": EVEN},
        {
            **VOCABULARY,
            "feed_forward_length": "intermediate_size_mlp",
            "expert_feed_forward_length": "intermediate_size",
            "interleave_moe_layer_step": "interleave_moe_layer_step",
        },
        {
            "feed_forward.experts.gate_up_proj": split(
                -2,
                "feed_forward.experts.gate_proj.weight",
                "feed_forward.experts.up_proj.weight",
                swap=True,
            ),
            "feed_forward.experts.down_proj": split(
                -1, "feed_forward.experts.down_proj.weight", swap=True
            ),
        },
        head_dim=True,
        experts="num_local_experts",
    ),
    "mimo_v2_flash": Conversion(
        "mimo2",
        {
            "moe_intermediate_size": WIDTH,
            "v_head_dim": EVEN,
            "sliding_window": 4,
            "attention_bias": FLAG,
        },
        {
            **EXPERT_WIDTH,
            "block_count": lambda config: config["num_hidden_layers"] + 3,
            "nextn_predict_layers": lambda config: 3,
            "head_count_kv": lambda config: [
                config["num_key_value_heads"] * (1 + (kind == "sliding_attention"))
                for kind in [*config["layer_types"], *["sliding_attention"] * 3]
            ],
            "sliding_window": "sliding_window",
            "sliding_window_pattern": lambda config: [
                kind == "sliding_attention"
                for kind in [*config["layer_types"], *["sliding_attention"] * 3]
            ],
            "value_length": "v_head_dim",
            "expert_count": "n_routed_experts",
        },
        CORRECTION | {"attention_sink_bias": renamed("attention_sink_bias.weight")},
        head_dim=True,
        experts="n_routed_experts",
        derived=lambda config: {
            "num_attention_heads": 2 * config["num_attention_heads"],
            "layer_types": ["full_attention"]
            + ["sliding_attention"] * (config["num_hidden_layers"] - 1),
        },
    ),
    "minimax_m2": Conversion(
        "minimax-m2",
        {},
        {"expert_feed_forward_length": "intermediate_size"},
        CORRECTION,
        head_dim=True,
        experts="num_local_experts",
    ),
    "olmoe": Conversion("olmoe", experts="num_experts"),
    "phimoe": Conversion(
        "phimoe", {"attention_bias": FLAG, "lm_head_bias": FLAG}, experts="num_local_experts"
    ),
    "qwen3_moe": Conversion(
        "qwen3moe",
        {"moe_intermediate_size": WIDTH, "attention_bias": FLAG},
        EXPERT_WIDTH,
        head_dim=True,
        experts="num_experts",
    ),
    "arctic": Conversion(
        "arctic",
        {"moe_layer_frequency": 1, "parallel_attn_mlp_res": True},
        VOCABULARY,
        experts="num_local_experts",
        renames=W_EXPERTS,
    ),
    "dbrx": Conversion(
        "dbrx",
        {"tie_word_embeddings": False},
        {
            "feed_forward_length": lambda config: config["ffn_config"]["ffn_hidden_size"],
            "head_count_kv": lambda config: config["attn_config"]["kv_n_heads"],
            "expert_count": lambda config: config["ffn_config"]["moe_num_experts"],
            "expert_used_count": lambda config: config["ffn_config"]["moe_top_k"],
        },
        {
            "mlp.w1": lambda shape, config: {"mlp.w1.weight": experts_of(config, shape)},
            "mlp.v1": lambda shape, config: {"mlp.v1.weight": experts_of(config, shape)},
            "mlp.w2": lambda shape, config: {
                "mlp.w2.weight": (
                    config["ffn_config"]["moe_num_experts"],
                    config["d_model"],
                    config["ffn_config"]["ffn_hidden_size"],
                )
            },
        },
        derived=lambda config: {
            "d_model": config["hidden_size"],
            "n_heads": config["num_attention_heads"],
            "n_layers": config["num_hidden_layers"],
            "max_seq_len": config["max_position_embeddings"],
            "attn_config": {"kv_n_heads": config["num_key_value_heads"]},
            "ffn_config": {
                "ffn_hidden_size": config["intermediate_size"],
                "moe_num_experts": 3,
                "moe_top_k": 2,
            },
        },
    ),
    "Qwen3-VL's text with experts": Conversion(
        "qwen3vlmoe",
        {"moe_intermediate_size": WIDTH},
        EXPERT_WIDTH,
        head_dim=True,
        experts="num_experts",
        model_type="qwen3_moe",
    ),
    # smallthinker.py writes a window where some layer slides, which layers it does not say.
    "smallthinker": Conversion(
        "smallthinker",
        {"moe_num_primary_experts": range(2, 5), "moe_num_active_primary_experts": range(1, 3)},
        {
            "expert_count": "moe_num_primary_experts",
            "expert_used_count": "moe_num_active_primary_experts",
            "expert_feed_forward_length": "moe_ffn_hidden_size",
            "feed_forward_length": "moe_ffn_hidden_size",
        },
        head_dim=True,
        derived=lambda config: {"moe_ffn_hidden_size": config["intermediate_size"]},
    ),
    "mixtral": Conversion(
        "llama",
        {},
        VOCABULARY,
        head_dim=True,
        experts="num_local_experts",
        renames=W_EXPERTS,
    ),
}
