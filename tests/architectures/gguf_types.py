"""Every model_type whose GGUF files are held against its declaration, and how llama.cpp converts it."""

from __future__ import annotations

from dataclasses import replace

from tests.architectures.gguf_conversions import (
    EVEN,
    FLAG,
    WIDTH,
    Config,
    Conversion,
    Shape,
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
# llama.py, lfm2.py and arctic.py.
W_EXPERTS = tuple(
    (rf"(block_sparse_moe|feed_forward)\.experts\.{name}\.", f"mlp.experts.{to}_proj.")
    for name, to in (("w1", "gate"), ("w2", "down"), ("w3", "up"))
)
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


def experts_of(config: Config, shape: Shape) -> Shape:
    """dbrx.py: a matrix of all experts, one after the other."""
    number = config["ffn_config"]["moe_num_experts"]
    return (number, shape[0] // number, shape[1])


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
    "EmbeddingGemma": Conversion(
        "gemma-embedding", {"tie_word_embeddings": True}, head_dim=True, model_type="gemma3_text"
    ),
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
    "HunYuanVL's text": Conversion(
        "hunyuan_vl", {"attention_bias": FLAG}, head_dim=True, model_type="hunyuan_v1_dense"
    ),
    "Llama without a head": Conversion(
        "llama-embed", {"tie_word_embeddings": True}, VOCABULARY, model_type="llama"
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
    "arctic": Conversion(
        "arctic",
        {"moe_layer_frequency": 1, "parallel_attn_mlp_res": True},
        VOCABULARY,
        experts="num_local_experts",
        renames=W_EXPERTS,
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
    "chatglm": Conversion(
        "chatglm",
        {"multi_query_attention": True, "add_qkv_bias": FLAG, "tie_word_embeddings": False},
        {"head_count_kv": "multi_query_group_num"},
        derived=lambda config: {
            "num_layers": config["num_hidden_layers"],
            "multi_query_group_num": config["num_key_value_heads"],
            "ffn_hidden_size": config["intermediate_size"],
            "padded_vocab_size": config["vocab_size"],
            "kv_channels": head_width(config),
            "seq_length": config["max_position_embeddings"],
        },
        prefix="transformer.",
    ),
    "codeshell": Conversion(
        "codeshell",
        {"position_embedding_type": "rope"},
        {
            "feed_forward_length": lambda config: 4 * config["hidden_size"],
            "head_count_kv": "num_query_groups",
        },
        derived=lambda config: {
            "n_embd": config["hidden_size"],
            "n_head": config["num_attention_heads"],
            "n_layer": config["num_hidden_layers"],
            "n_positions": config["max_position_embeddings"],
            "n_inner": 4 * config["hidden_size"],
            "num_query_groups": config["num_key_value_heads"],
        },
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
    "jais": Conversion(
        "jais",
        {"activation_function": "swiglu", "position_embedding_type": "alibi"},
        {"head_count_kv": None},
        {
            "relative_pe.slopes": dropped,
            **{
                f"{name}.weight": (lambda shape, config, name=name: {f"{name}.weight": shape[::-1]})
                for name in (".c_attn", ".c_proj", ".c_fc", ".c_fc2")
            },
        },
        derived=lambda config: {
            "n_embd": config["hidden_size"],
            "n_head": config["num_attention_heads"],
            "n_layer": config["num_hidden_layers"],
            "n_positions": config["max_position_embeddings"],
            "n_inner": config["intermediate_size"],
        },
    ),
    "plamo": Conversion(
        "plamo",
        {"tie_word_embeddings": False},
        {"context_length": lambda config: 4096, "head_count_kv": lambda config: 5},
        derived=lambda config: {
            "n_shared_head": 3,
            "num_attention_heads": 15,
            "hidden_size": 30 * config["num_key_value_heads"],
        },
    ),
    "PaddleOCR's text": Conversion(
        "paddleocr", {"use_bias": FLAG}, head_dim=True, model_type="ernie4_5"
    ),
    "Qwen2-VL's text": Conversion("qwen2vl", model_type="qwen2"),
    "Qwen3-VL's text": Conversion(
        "qwen3vl", {"attention_bias": FLAG}, head_dim=True, model_type="qwen3"
    ),
    "Qwen3-VL's text with experts": Conversion(
        "qwen3vlmoe",
        {"moe_intermediate_size": WIDTH},
        EXPERT_WIDTH,
        head_dim=True,
        experts="num_experts",
        model_type="qwen3_moe",
    ),
    # Those that were there before.
    "gemma": Conversion("gemma", {"tie_word_embeddings": True}, head_dim=True),
    "gemma2": Conversion("gemma2", {"tie_word_embeddings": True}, head_dim=True),
    "gemma3_text": Conversion("gemma3", {"tie_word_embeddings": True}, head_dim=True),
    "gpt2": Conversion(
        "gpt2",
        {"tie_word_embeddings": True},
        {"head_count_kv": None},
        {
            f"{name}.weight": (lambda shape, config, name=name: {f"{name}.weight": shape[::-1]})
            for name in (".c_attn", ".c_proj", ".c_fc")
        },
        derived=lambda config: {
            "n_embd": config["hidden_size"],
            "n_head": config["num_attention_heads"],
            "n_layer": config["num_hidden_layers"],
            "n_positions": config["max_position_embeddings"],
            "n_inner": config["intermediate_size"],
        },
    ),
    "gpt_neox": Conversion("gptneox", {"attention_bias": True}, {"head_count_kv": None}),
    "llama": Conversion("llama", BIASES, VOCABULARY, head_dim=True),
    "mistral": Conversion("llama", {}, VOCABULARY, head_dim=True),
    "mixtral": Conversion(
        "llama",
        {},
        VOCABULARY,
        head_dim=True,
        experts="num_local_experts",
        renames=W_EXPERTS,
    ),
    "olmo2": Conversion("olmo2"),
    "phi3": Conversion("phi3"),
    "qwen2": Conversion("qwen2"),
    "qwen3": Conversion("qwen3", {"attention_bias": FLAG}, head_dim=True),
    "smollm3": Conversion("smollm3", BIASES, VOCABULARY),
    "starcoder2": Conversion("starcoder2", {"use_bias": FLAG}),
}
