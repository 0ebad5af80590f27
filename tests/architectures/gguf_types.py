"""Every model_type whose GGUF files are held against its declaration, and how llama.cpp converts it."""

from __future__ import annotations

from tests.architectures.gguf_conversions import (
    EVEN,
    FLAG,
    WIDTH,
    Config,
    Conversion,
    dropped,
    latents,
    queries_keys_values,
    renamed,
    split,
)

CORRECTION = {"e_score_correction_bias": renamed("e_score_correction.bias")}
EXPERT_BIAS = {".expert_bias": renamed(".expert_bias.bias")}
EXPERT_WIDTH = {"expert_feed_forward_length": "moe_intermediate_size"}
DENSE_FIRST = {"leading_dense_block_count": "first_k_dense_replace"}
VOCABULARY = {"vocab_size": "vocab_size"}
BIASES = {"attention_bias": FLAG, "mlp_bias": FLAG}
HALVES = split(-2, "gate_proj.weight", "up_proj.weight")
# granite.py names them itself.
GRANITE = {
    "block_sparse_moe.input_linear.weight": split(
        -2, "mlp.experts.gate_proj.weight", "mlp.experts.up_proj.weight"
    ),
    "shared_mlp.input_linear.weight": split(
        -2, "mlp.shared_expert.gate_proj.weight", "mlp.shared_expert.up_proj.weight"
    ),
}
# gpt_oss.py and llama4.py: in place of (in, out).
SWAPPED = {
    "gate_up_proj": split(-2, "gate_proj.weight", "up_proj.weight", swap=True),
    "down_proj": split(-1, "down_proj.weight", swap=True),
}
LATENT = {
    "kv_lora_rank": EVEN,
    "qk_rope_head_dim": EVEN,
    "qk_nope_head_dim": EVEN,
    "v_head_dim": WIDTH,
}


def all_heads(config: Config) -> Config:
    """As many key/value heads as heads."""
    return {"num_key_value_heads": config["num_attention_heads"]}


def head_width(config: Config) -> int:
    """Where no key says it."""
    return int(config["hidden_size"]) // int(config["num_attention_heads"])


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
    "apertus": Conversion(
        "apertus",
        edits={f"act_fn.{name}": dropped for name in ("alpha_p", "alpha_n", "beta", "eps")},
    ),
    "arcee": Conversion("arcee", BIASES, VOCABULARY, head_dim=True),
    "baichuan": Conversion(
        "baichuan",
        edits={
            "self_attn.W_pack.weight": split(
                0, *(f"self_attn.{each}_proj.weight" for each in "qkv")
            )
        },
        derived=all_heads,
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
    "bloom": Conversion(
        "bloom",
        {"seq_length": range(4, 9)},
        {"feed_forward_length": lambda config: 4 * config["hidden_size"]},
        derived=lambda config: {
            "n_head": config["num_attention_heads"],
            "n_layer": config["num_hidden_layers"],
        },
        grouped=False,
        prefix="transformer.",
    ),
    "cohere": Conversion(
        "command-r", {"attention_bias": FLAG, "use_qk_norm": FLAG, "tie_word_embeddings": True}
    ),
    "cohere2": Conversion(
        "cohere2",
        {"tie_word_embeddings": True, "sliding_window": 4, "attention_bias": False},
        {**VOCABULARY, "sliding_window": "sliding_window"},
    ),
    "deepseek": Conversion(
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
    ),
    "deepseek_v2": DEEPSEEK2,
    "deepseek_v3": DEEPSEEK2,
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
    "ernie4_5": Conversion("ernie4_5", {"use_bias": FLAG}, head_dim=True),
    "exaone": Conversion(
        "exaone",
        keys={"block_count": "num_layers"},
        derived=lambda config: {"num_layers": config["num_hidden_layers"]},
    ),
    "exaone4": Conversion("exaone4", {"sliding_window": 4}, VOCABULARY, head_dim=True),
    "falcon": Conversion(
        "falcon",
        {
            "new_decoder_architecture": FLAG,
            "multi_query": True,
            "bias": FLAG,
            "parallel_attn": True,
        },
        {
            "feed_forward_length": lambda config: 4 * config["hidden_size"],
            "head_count_kv": "num_kv_heads",
        },
        derived=lambda config: {
            "num_kv_heads": config["num_key_value_heads"]
            if config["new_decoder_architecture"]
            else 1
        },
    ),
    "glm": Conversion(
        "chatglm",
        {"attention_bias": FLAG},
        {"key_length": None, "value_length": None},
        derived=lambda config: {"head_dim": head_width(config)},
    ),
    "glm4": Conversion("glm4", {"attention_bias": FLAG}, head_dim=True),
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
    "gpt_bigcode": Conversion(
        "starcoder",
        {"multi_query": True, "tie_word_embeddings": True},
        {"feed_forward_length": lambda c: 4 * c["hidden_size"], "head_count_kv": lambda c: 1},
        derived=lambda config: {
            "n_embd": config["hidden_size"],
            "n_head": config["num_attention_heads"],
            "n_layer": config["num_hidden_layers"],
            "n_positions": config["max_position_embeddings"],
            "n_inner": 4 * config["hidden_size"],
        },
    ),
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
    "granite": Conversion("granite", BIASES, VOCABULARY),
    "granitemoe": Conversion(
        "granitemoe", {"attention_bias": FLAG}, VOCABULARY, GRANITE, experts="num_local_experts"
    ),
    "granitemoeshared": Conversion(
        "granitemoe",
        {"attention_bias": FLAG, "shared_intermediate_size": WIDTH},
        {**VOCABULARY, "expert_shared_feed_forward_length": "shared_intermediate_size"},
        GRANITE,
        experts="num_local_experts",
    ),
    "hunyuan_v1_dense": Conversion("hunyuan-dense", {"attention_bias": FLAG}, head_dim=True),
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
    "internlm2": Conversion(
        "internlm2",
        {"bias": False},
        edits={
            "attention.wqkv.weight": queries_keys_values(
                *(f"attention.w{each}.weight" for each in "qkv")
            )
        },
    ),
    "internlm3": Conversion("llama", {"qkv_bias": False, "bias": False}, VOCABULARY, head_dim=True),
    "iquestcoder": Conversion("llama", BIASES, VOCABULARY, head_dim=True),
    "jais2": Conversion("jais2", BIASES, head_dim=True),
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
    "minicpm": Conversion("minicpm"),
    "minicpm3": Conversion(
        "minicpm3",
        {**LATENT, "q_lora_rank": (6, 10)},
        {
            **VOCABULARY,
            "q_lora_rank": "q_lora_rank",
            "kv_lora_rank": "kv_lora_rank",
            "key_length": lambda c: c["qk_nope_head_dim"] + c["qk_rope_head_dim"],
            "rope_dimension_count": "qk_rope_head_dim",
        },
        derived=lambda config: (
            all_heads(config)
            | {"v_head_dim": config["hidden_size"] // config["num_attention_heads"]}
        ),
    ),
    "minimax_m2": Conversion(
        "minimax-m2",
        {},
        {"expert_feed_forward_length": "intermediate_size"},
        CORRECTION,
        head_dim=True,
        experts="num_local_experts",
    ),
    "ministral3": Conversion("mistral3", {}, VOCABULARY, head_dim=True),
    "mpt": Conversion(
        "mpt",
        {},
        {"feed_forward_length": lambda config: 4 * config["d_model"], "head_count_kv": None},
        derived=lambda config: {
            "d_model": config["hidden_size"],
            "n_heads": config["num_attention_heads"],
            "n_layers": config["num_hidden_layers"],
            "max_seq_len": config["max_position_embeddings"],
        },
    ),
    "nemotron": Conversion("nemotron", BIASES, VOCABULARY, head_dim=True),
    "olmo": Conversion("olmo"),
    "olmo3": Conversion(
        "olmo2",
        {"sliding_window": 4},
        {
            "sliding_window": "sliding_window",
            "sliding_window_pattern": lambda config: [
                (i + 1) % 4 != 0 for i in range(config["num_hidden_layers"])
            ],
        },
    ),
    "olmoe": Conversion("olmoe", experts="num_experts"),
    "orion": Conversion("orion"),
    "PanguEmbedded": Conversion("pangu-embedded", {"bias": FLAG}, VOCABULARY, head_dim=True),
    "phi": Conversion(
        "phi2",
        {},
        {"head_count_kv": "num_attention_heads"},
        derived=lambda config: (
            all_heads(config)
            | {"intermediate_size": 4 * config["hidden_size"], "tie_word_embeddings": False}
        ),
    ),
    "phimoe": Conversion(
        "phimoe", {"attention_bias": FLAG, "lm_head_bias": FLAG}, experts="num_local_experts"
    ),
    "qwen": Conversion(
        "qwen",
        {"no_bias": True, "tie_word_embeddings": False},
        derived=lambda config: all_heads(config) | {"kv_channels": head_width(config)},
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
    "qwen3_moe": Conversion(
        "qwen3moe",
        {"moe_intermediate_size": WIDTH, "attention_bias": FLAG},
        EXPERT_WIDTH,
        head_dim=True,
        experts="num_experts",
    ),
    "seed_oss": Conversion(
        "seed_oss", {"attention_bias": FLAG, "attention_out_bias": FLAG}, head_dim=True
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
    "stablelm": Conversion(
        "stablelm",
        {"use_qkv_bias": FLAG, "qk_layernorm": FLAG, "use_parallel_residual": FLAG},
        edits={
            f"{each}_layernorm.norms.weight": renamed(f"{each}_layernorm.weight") for each in "qk"
        },
    ),
    "xverse": Conversion("xverse"),
}
