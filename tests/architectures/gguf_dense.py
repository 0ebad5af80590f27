"""Decoders without experts: how llama.cpp converts them."""

from __future__ import annotations

from tests.architectures.gguf_conversions import (
    FLAG,
    Conversion,
    dropped,
    queries_keys_values,
    renamed,
    split,
)
from tests.architectures.gguf_rules import BIASES, LATENT, VOCABULARY, all_heads, head_width

CONVERSIONS: dict[str, Conversion] = {
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
    # bitnet.py reads the names of 1bitLLM.
    "bitnet": Conversion(
        "bitnet",
        {"tie_word_embeddings": True},
        VOCABULARY,
        {
            "attn_sub_norm.weight": renamed("inner_attn_ln.weight"),
            "ffn_sub_norm.weight": renamed("ffn_layernorm.weight"),
        },
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
    # chameleon.py
    "chameleon": Conversion(
        "chameleon",
        BIASES,
        {"swin_norm": lambda config: False},
        derived=all_heads,
        left_out=("model.vqmodel.",),
    ),
    "cohere": Conversion(
        "command-r", {"attention_bias": FLAG, "use_qk_norm": FLAG, "tie_word_embeddings": True}
    ),
    "cohere2": Conversion(
        "cohere2",
        {"tie_word_embeddings": True, "sliding_window": 4, "attention_bias": False},
        {**VOCABULARY, "sliding_window": "sliding_window"},
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
    "granite": Conversion("granite", BIASES, VOCABULARY),
    "hunyuan_v1_dense": Conversion("hunyuan-dense", {"attention_bias": FLAG}, head_dim=True),
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
    # maincoder.py reads the name of Llama 4's feed-forward.
    "Maincoder": Conversion(
        "maincoder",
        head_dim=True,
        model_type="qwen3",
        renames=((r"mlp\.", "feed_forward."),),
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
    "qwen": Conversion(
        "qwen",
        {"no_bias": True, "tie_word_embeddings": False},
        derived=lambda config: all_heads(config) | {"kv_channels": head_width(config)},
    ),
    # refact.py splits keys from values and gate from up; what it makes are a Llama's with one key/value head.
    "Refact": Conversion(
        "refact",
        derived=lambda config: {"num_key_value_heads": 1, "head_dim": head_width(config)},
        keys={"key_length": None, "value_length": None},
        model_type="llama",
    ),
    "seed_oss": Conversion(
        "seed_oss", {"attention_bias": FLAG, "attention_out_bias": FLAG}, head_dim=True
    ),
    "stablelm": Conversion(
        "stablelm",
        {"use_qkv_bias": FLAG, "qk_layernorm": FLAG, "use_parallel_residual": FLAG},
        edits={
            f"{each}_layernorm.norms.weight": renamed(f"{each}_layernorm.weight") for each in "qk"
        },
    ),
    "xverse": Conversion("xverse"),
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
    "olmo2": Conversion("olmo2"),
    "phi3": Conversion("phi3"),
    "qwen2": Conversion("qwen2"),
    "qwen3": Conversion("qwen3", {"attention_bias": FLAG}, head_dim=True),
    "smollm3": Conversion("smollm3", BIASES, VOCABULARY),
    "starcoder2": Conversion("starcoder2", {"use_bias": FLAG}),
}
