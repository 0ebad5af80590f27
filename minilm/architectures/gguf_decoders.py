"""llama.cpp's decoders whose files say less, more or otherwise than the usual keys.

Source: ggml-org/llama.cpp, `gguf-py/gguf/constants.py` and, for what a file of each architecture has,
the modules in `conversion/` that `convert_hf_to_gguf.py` loads.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.building_blocks import E, d, g, h, k, m
from minilm.architectures.gguf_architecture import (
    CORRECTION,
    DENSE_FIRST,
    LATENT,
    POST_ATTENTION,
    SHARED_EXPERTS,
    SHARED_WIDTH,
    SLIDES,
    Fields,
    GgufArchitecture,
    gate_and_up,
)
from minilm.architectures.gguf_parts import Part, Parts, half_swapped, rows, sized, swapped
from minilm.ledger.symbols import symbol

A = symbol("A")


def _queries_keys_values(name: str) -> Parts:
    """One matrix apart."""
    parts = (("attn_q", h * k), ("attn_k", g * k), ("attn_v", g * k))
    return {name: tuple(Part(stem, rows(number)) for stem, number in parts)}


_DEEPSEEK_SHARED: Fields = {"expert_shared_count": ("n_shared_experts",)}
_SHARED_NUMBER: Fields = {"expert_shared_count": ("num_shared_experts",)}
_AS_EXPERTS: Fields = {"expert_feed_forward_length": ("intermediate_size",)}
_DEEPSEEK = GgufArchitecture(
    sizes={"expert_count": ("n_routed_experts",), **DENSE_FIRST, **_DEEPSEEK_SHARED},
    parts=SHARED_EXPERTS,
)
DEEPSEEK2 = GgufArchitecture(
    variants=(("exp_probs_b.bias", "deepseek_v3"),),
    sizes={
        "attention.kv_lora_rank": ("kv_lora_rank",),
        "rope.dimension_count": ("qk_rope_head_dim",),
        **DENSE_FIRST,
    },
    may_have={
        "attention.q_lora_rank": ("q_lora_rank",),
        "attention.value_length": ("v_head_dim",),
        "attention.value_length_mla": ("v_head_dim",),
        **_DEEPSEEK_SHARED,
    },
    differences={
        "qk_nope_head_dim": (
            "attention.key_length_mla|attention.key_length",
            "rope.dimension_count",
        )
    },
    present={"attention_bias": "attn_kv_a_mqa.bias"},
    fixed={"q_lora_rank": None, "num_nextn_predict_layers": 0},
    parts=LATENT | SHARED_EXPERTS | CORRECTION,
)
_PER_LAYER: Parts = {
    "embed_tokens_per_layer": (Part("per_layer_token_embd"),),
    "per_layer_model_projection": (Part("per_layer_model_proj"),),
    "per_layer_projection_norm": (Part("per_layer_proj_norm"),),
    "per_layer_input_gate": (Part("inp_gate"),),
    "}.per_layer_projection": (Part("proj"),),
    "post_per_layer_input_norm": (Part("post_norm"),),
}
GRANITE_EXPERTS: Parts = {
    **gate_and_up("block_sparse_moe.input_linear"),
    **gate_and_up("shared_mlp.input_linear", "ffn_{}_shexp"),
    "shared_mlp.output_linear": (Part("ffn_down_shexp"),),
}

DECODERS: dict[str, GgufArchitecture] = {
    "afmoe": GgufArchitecture(
        sizes={"leading_dense_block_count": ("num_dense_layers",), **_SHARED_NUMBER},
        parts=SHARED_EXPERTS | CORRECTION | {"self_attn.gate_proj": (Part("attn_gate"),)},
    ),
    "apertus": GgufArchitecture(
        parts={f"act_fn.{name}": () for name in ("alpha_p", "alpha_n", "beta", "eps")}
    ),
    "arctic": GgufArchitecture(
        fixed={"moe_layer_frequency": 1, "parallel_attn_mlp_res": True},
        parts={"post_attention_layernorm": (Part("ffn_norm_exps"),)},
    ),
    "baichuan": GgufArchitecture(parts=_queries_keys_values("W_pack")),
    "bailingmoe": GgufArchitecture(
        sizes=DENSE_FIRST | _SHARED_NUMBER,
        parts=_queries_keys_values("query_key_value") | SHARED_EXPERTS,
    ),
    "bailingmoe2": GgufArchitecture(
        sizes={
            "expert_shared_feed_forward_length": ("moe_shared_expert_intermediate_size",),
            **DENSE_FIRST,
        },
        fixed={"num_shared_experts": 1, "num_nextn_predict_layers": 0},
        present={"use_qkv_bias": "attn_qkv.bias"},
        parts=SHARED_EXPERTS | CORRECTION,
    ),
    # Of 1bitLLM, whose norms have other names than transformers'.
    "bitnet": GgufArchitecture(
        parts={
            "self_attn.attn_sub_norm": (Part("attn_sub_norm"),),
            "mlp.ffn_sub_norm": (Part("ffn_sub_norm"),),
        }
    ),
    "chameleon": GgufArchitecture(left_out=("model.vqmodel.",)),
    "chatglm": GgufArchitecture(
        variants=(("attn_qkv.weight", "chatglm"),),
        may_have={
            "vocab_size": ("vocab_size", "padded_vocab_size"),
            "block_count": ("num_hidden_layers", "num_layers"),
            "feed_forward_length": ("intermediate_size", "ffn_hidden_size"),
            "attention.head_count_kv": ("num_key_value_heads", "multi_query_group_num"),
            "context_length": ("max_position_embeddings", "seq_length"),
        },
        ratios={"kv_channels": ("embedding_length", "attention.head_count")},
        present={"add_qkv_bias": "attn_qkv.bias", "add_bias_linear": "ffn_up.bias"},
        fixed={"multi_query_attention": True},
    ),
    "codeshell": GgufArchitecture(
        may_have={"attention.head_count_kv": ("num_query_groups",)},
        fixed={"position_embedding_type": "rope"},
    ),
    "command-r": GgufArchitecture(present={"use_qk_norm": "attn_q_norm.weight"}),
    "dbrx": GgufArchitecture(
        may_have={
            "embedding_length": ("d_model",),
            "block_count": ("n_layers",),
            "context_length": ("max_seq_len",),
            "attention.head_count": ("n_heads",),
            "attention.head_count_kv": ("attn_config.kv_n_heads",),
            "feed_forward_length": ("ffn_config.ffn_hidden_size",),
            "expert_count": ("ffn_config.moe_num_experts",),
            "expert_used_count": ("ffn_config.moe_top_k",),
        },
        parts={
            "norm_2": (Part("attn_output_norm"),),
            "mlp.w1": (Part("ffn_gate_exps", sized(E, m, d), ".weight"),),
            "mlp.v1": (Part("ffn_up_exps", sized(E, m, d), ".weight"),),
            "mlp.w2": (Part("ffn_down_exps", sized(E, d, m), ".weight"),),
        },
    ),
    "deepseek": _DEEPSEEK,
    "deepseek2": DEEPSEEK2,
    # Of pictures of pages, whose text has plain heads.
    "deepseek2-ocr": replace(_DEEPSEEK, model_type="deepseek"),
    "dots1": GgufArchitecture(
        sizes=DENSE_FIRST | _DEEPSEEK_SHARED, parts=SHARED_EXPERTS | CORRECTION
    ),
    # Of those that write by diffusion, in the shape of another.
    "dream": GgufArchitecture(model_type="qwen2"),
    "llada": GgufArchitecture(model_type="llama"),
    "llada-moe": GgufArchitecture(model_type="qwen3_moe", without=("feed_forward_length",)),
    "rnd1": GgufArchitecture(model_type="qwen3_moe"),
    "ernie4_5-moe": GgufArchitecture(
        sizes={
            "expert_shared_count": ("moe_num_shared_experts",),
            "interleave_moe_layer_step": ("moe_layer_interval",),
            "leading_dense_block_count": ("moe_layer_start_index",),
        },
        parts=SHARED_EXPERTS | CORRECTION,
    ),
    "exaone4": GgufArchitecture(kinds=SLIDES),
    "exaone-moe": GgufArchitecture(
        sizes=DENSE_FIRST | _SHARED_NUMBER, kinds=SLIDES, parts=SHARED_EXPERTS | CORRECTION
    ),
    "falcon": GgufArchitecture(
        present={
            "new_decoder_architecture": "attn_norm_2.weight",
            "bias": "attn_qkv.bias",
        },
        may_have={"attention.head_count_kv": ("num_kv_heads",)},
        parts={"ln_attn": (Part("attn_norm_2"),), "ln_mlp": (Part("attn_norm"),)},
    ),
    "gemma-embedding": GgufArchitecture(
        model_type="gemma3_text", unlike=("dense_2.weight", "dense_3.weight")
    ),
    "gemma3n": GgufArchitecture(
        sizes={
            "altup.num_inputs": ("altup_num_inputs",),
            "attention.shared_kv_layers": ("num_kv_shared_layers",),
            "embedding_length_per_layer_input": ("hidden_size_per_layer_input",),
        },
        kinds=SLIDES,
        shapes={
            "laurel_rank": ("blk.0.laurel_l.weight", 0),
            "vocab_size_per_layer_input": ("per_layer_token_embd.weight", 0),
        },
        parts={
            **_PER_LAYER,
            "altup.correct_output_scale": (Part("altup_correct_scale"),),
            "altup.correction_coefs": (Part("altup_correct_coef"),),
            "altup.prediction_coefs": (Part("altup_predict_coef"),),
            "altup.modality_router": (Part("altup_router"),),
            "altup.router_norm": (Part("altup_router_norm"),),
            "laurel.linear_left": (Part("laurel_l"),),
            "laurel.linear_right": (Part("laurel_r"),),
            "laurel.post_laurel_norm": (Part("laurel_post_norm"),),
            # All projections of a kind in one tensor, in the place of the first.
            "altup_projections.0": (Part("altup_proj", sized(A - 1, d, d)),),
            "altup_unembed_projections.0": (Part("altup_unembd_proj", sized(A - 1, d, d)),),
            **{f"altup_{name}projections.{i}": () for name in ("", "unembed_") for i in (1, 2)},
        },
        # Of layers that share the keys and values of others, transformers had own ones before 5.
        everywhere=("attn_k", "attn_v", "attn_k_norm"),
    ),
    "gemma4": GgufArchitecture(
        sizes={
            "attention.key_length": ("global_head_dim",),
            "attention.key_length_swa": ("head_dim",),
            "attention.shared_kv_layers": ("num_kv_shared_layers",),
            "embedding_length_per_layer_input": ("hidden_size_per_layer_input",),
        },
        may_have={"expert_used_count": ("top_k_experts",)},
        kinds=SLIDES,
        by_kind={
            "attention.head_count_kv": (
                "attention.sliding_window_pattern",
                "num_global_key_value_heads",
                "num_key_value_heads",
            )
        },
        doubled={"use_double_wide_mlp": "feed_forward_length"},
        fewer={"attention_k_eq_v": ("attn_v.weight", "attn_k.weight")},
        present={"enable_moe_block": "ffn_gate_inp.weight"},
        shapes_if_stored={"vocab_size_per_layer_input": ("per_layer_token_embd.weight", 0)},
        parts=_PER_LAYER
        | {
            "layer_scalar": (Part("layer_output_scale", suffix=".weight"),),
            "router.scale": (Part("ffn_gate_inp", suffix=".scale"),),
            "router.per_expert_scale": (Part("ffn_down_exps", suffix=".scale"),),
            "experts.gate_up_proj": (Part("ffn_gate_up_exps"),),
            "pre_feedforward_layernorm_2": (Part("pre_ffw_norm_2"),),
            "post_feedforward_layernorm_1": (Part("post_ffw_norm_1"),),
            "post_feedforward_layernorm_2": (Part("post_ffw_norm_2"),),
        },
        everywhere=("attn_k", "attn_v", "attn_k_norm"),
    ),
    "glm-dsa": replace(
        DEEPSEEK2,
        variants=(),
        sizes=DEEPSEEK2.sizes
        | {
            "attention.q_lora_rank": ("q_lora_rank",),
            "attention.indexer.head_count": ("index_n_heads",),
            "attention.indexer.key_length": ("index_head_dim",),
            "attention.indexer.top_k": ("index_topk",),
        },
        parts=DEEPSEEK2.parts
        | {
            "indexer.wq_b": (Part("indexer.attn_q_b"),),
            "indexer.wk": (Part("indexer.attn_k"),),
            "indexer.k_norm": (Part("indexer.k_norm"),),
            "indexer.weights_proj": (Part("indexer.proj"),),
        },
    ),
    "glm4moe": GgufArchitecture(
        sizes=DENSE_FIRST | _DEEPSEEK_SHARED,
        present={"use_qk_norm": "attn_q_norm.weight"},
        fixed={"num_nextn_predict_layers": 0},
        parts=SHARED_EXPERTS | CORRECTION | POST_ATTENTION,
    ),
    "gpt-oss": GgufArchitecture(
        may_have=_AS_EXPERTS,
        parts=POST_ATTENTION
        | {
            "self_attn.sinks": (Part("attn_sinks", suffix=".weight"),),
            **{
                f"gate_up_proj{ending}": tuple(
                    Part(f"ffn_{each}_exps", half_swapped) for each in ("gate", "up")
                )
                for ending in ("", "_bias")
            },
            "down_proj": (Part("ffn_down_exps", swapped),),
            "down_proj_bias": (Part("ffn_down_exps"),),
        },
    ),
    "granitemoe": GgufArchitecture(
        variants=(("expert_shared_feed_forward_length", "granitemoeshared"),),
        may_have={"expert_shared_feed_forward_length": ("shared_intermediate_size",)},
        parts=GRANITE_EXPERTS,
    ),
    # Of Grok-2, which has a dense feed-forward beside the experts.
    "grok": GgufArchitecture(
        unlike=("ffn_gate.weight", "ffn_up.weight"),
        parts={
            "post_attn_norm": (Part("attn_output_norm"),),
            "post_moe_norm": (Part("layer_output_norm"),),
        },
    ),
    "hunyuan-moe": GgufArchitecture(
        may_have={"expert_used_count": ("moe_topk", "num_experts_per_tok")}, parts=SHARED_EXPERTS
    ),
    "hunyuan_vl": GgufArchitecture(model_type="hunyuan_v1_dense"),
    "internlm2": GgufArchitecture(
        present={"bias": "attn_output.bias"}, parts=_queries_keys_values("attention.wqkv")
    ),
    "jais": GgufArchitecture(
        fixed={"position_embedding_type": "alibi", "activation_function": "swiglu"},
        parts={"relative_pe.slopes": ()},
    ),
    "llama": GgufArchitecture(variants=(("expert_count", "mixtral"),)),
    "llama-embed": GgufArchitecture(model_type="llama"),
    "llama4": GgufArchitecture(
        sizes={"interleave_moe_layer_step": ("interleave_moe_layer_step",), **_AS_EXPERTS},
        may_have={"feed_forward_length": ("intermediate_size_mlp",)},
        parts=SHARED_EXPERTS
        | {
            "experts.gate_up_proj": tuple(
                Part(f"ffn_{each}_exps", half_swapped) for each in ("gate", "up")
            ),
            "experts.down_proj": (Part("ffn_down_exps", swapped),),
        },
    ),
    "maincoder": GgufArchitecture(model_type="qwen3"),
    "mimo2": GgufArchitecture(
        sizes={"attention.value_length": ("v_head_dim",)},
        kinds=SLIDES,
        # Twice as many where layers slide, which is not a field.
        by_kind={
            "attention.head_count_kv": (
                "attention.sliding_window_pattern",
                "num_key_value_heads",
                "swa_num_key_value_heads",
            )
        },
        parts=CORRECTION
        | {"self_attn.attention_sink_bias": (Part("attn_sinks", suffix=".weight"),)},
    ),
    "minicpm3": GgufArchitecture(
        sizes={
            "attention.q_lora_rank": ("q_lora_rank",),
            "attention.kv_lora_rank": ("kv_lora_rank",),
            "rope.dimension_count": ("qk_rope_head_dim",),
        },
        differences={"qk_nope_head_dim": ("attention.key_length", "rope.dimension_count")},
        parts={name: part for name, part in LATENT.items() if name != "kv_b_proj"},
    ),
    "minimax-m2": GgufArchitecture(sizes=_AS_EXPERTS, parts=CORRECTION),
    "mistral4": replace(DEEPSEEK2, variants=()),
    # transformers has no biases, learned positions and norms of heads, and others have.
    "mpt": GgufArchitecture(unlike=("attn_qkv.bias", "position_embd.weight", "attn_q_norm.weight")),
    "olmo2": GgufArchitecture(variants=(("attention.sliding_window", "olmo3"),), kinds=SLIDES),
    "pangu-embedded": GgufArchitecture(present={"bias": "attn_q.bias"}),
    # Of files of 2023, in one matrix.
    "phi2": GgufArchitecture(unlike=("attn_qkv.weight",)),
    "phimoe": GgufArchitecture(present={"lm_head_bias": "output.bias"}),
    "qwen": GgufArchitecture(
        may_have={"attention.key_length": ("kv_channels",)},
        ratios={"kv_channels": ("embedding_length", "attention.head_count")},
        parts={},
    ),
    "plamo": GgufArchitecture(
        ratios={"n_shared_head": ("attention.head_count", "attention.head_count_kv")}
    ),
    "paddleocr": GgufArchitecture(model_type="ernie4_5"),
    "qwen2vl": GgufArchitecture(model_type="qwen2"),
    "qwen3vl": GgufArchitecture(model_type="qwen3"),
    "qwen3vlmoe": GgufArchitecture(model_type="qwen3_moe"),
    "qwen2moe": GgufArchitecture(
        sizes=SHARED_WIDTH, present={"qkv_bias": "attn_q.bias"}, parts=SHARED_EXPERTS
    ),
    # Keys and values are split by the conversion.
    "refact": GgufArchitecture(model_type="llama"),
    "seed_oss": GgufArchitecture(
        present={"attention_out_bias": "attn_output.bias"}, parts=POST_ATTENTION
    ),
    # Of releases with dense layers, which are not declared.
    "smallthinker": GgufArchitecture(
        unlike=("ffn_gate.weight",),
        sizes={
            "expert_count": ("moe_num_primary_experts",),
            "expert_used_count": ("moe_num_active_primary_experts",),
            "expert_feed_forward_length": ("moe_ffn_hidden_size",),
        },
        may_have={"attention.sliding_window": ("sliding_window", "sliding_window_size")},
    ),
    "stablelm": GgufArchitecture(
        present={"use_qkv_bias": "attn_q.bias", "qk_layernorm": "attn_q_norm.weight"},
        absent={"use_parallel_residual": "ffn_norm.weight"},
    ),
    "starcoder": GgufArchitecture(fixed={"multi_query": True}),
}
