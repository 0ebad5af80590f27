"""llama.cpp's architectures whose files say less, more or otherwise than the usual keys: one table.

Source: ggml-org/llama.cpp, `gguf-py/gguf/constants.py` and, for what a file of each architecture has,
the modules in `conversion/` that `convert_hf_to_gguf.py` loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from minilm.architectures.building_blocks import E, d, g, h, k, m
from minilm.architectures.gguf_parts import (
    Part,
    Parts,
    half,
    half_swapped,
    rows,
    sized,
    swapped,
)
from minilm.ledger.symbols import symbol

c, n, v = (symbol(letter) for letter in "cnv")


@dataclass(frozen=True, kw_only=True)
class GgufArchitecture:
    """How files of one architecture say what a config.json says; all keys stand behind its name.

    ``variants`` are (key or tensor, model_type): the type of files with that, before the one that
    `MODEL_TYPES` lists first. ``sizes`` are keys and the fields that they are read as, in place of the
    usual ones; ``may_have`` those that a file need not have. ``ratios`` and ``differences`` are fields
    that two keys give, ``kinds`` a list of names by whether a list's number is 0. ``present`` are fields
    that are true where layers have a tensor, ``absent`` where they do not. ``shapes`` are the fields
    that only the shape of a tensor gives: (its name, the axis). ``fixed`` is the same in all files.
    """

    variants: tuple[tuple[str, str], ...] = ()
    sizes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    may_have: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ratios: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    differences: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    kinds: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    present: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    parts: Parts = field(default_factory=dict)


_SHARED: Parts = {
    f"{name}.{matrix}_proj": (Part(f"ffn_{matrix}_shexp"),)
    for name in ("shared_experts", "shared_expert", "shared_mlp")
    for matrix in ("gate", "up", "down")
}
_CORRECTION: Parts = {
    name: (Part("exp_probs_b", suffix=".bias"),)
    for name in ("e_score_correction_bias", ".expert_bias")
}
_LATENT: Parts = {
    "q_a_layernorm": (Part("attn_q_a_norm"),),
    "kv_a_layernorm": (Part("attn_kv_a_norm"),),
    "q_b_proj": (Part("attn_q_b"),),
    # Of files before multi-head latent attention was absorbed, whole.
    "kv_b_proj": (Part("attn_k_b", sized(h, c, n)), Part("attn_v_b", sized(h, v, c))),
}
_POST_ATTENTION: Parts = {"post_attention_layernorm": (Part("post_attention_norm"),)}


def _queries_keys_values(name: str) -> Parts:
    """One matrix apart."""
    parts = (("attn_q", h * k), ("attn_k", g * k), ("attn_v", g * k))
    return {name: tuple(Part(stem, rows(number)) for stem, number in parts)}


def _gate_and_up(name: str, stem: str = "ffn_{}_exps") -> Parts:
    """One matrix apart, gate above up."""
    return {name: tuple(Part(stem.format(each), half) for each in ("gate", "up"))}


_DENSE_FIRST = {"leading_dense_block_count": ("first_k_dense_replace",)}
_DEEPSEEK_SHARED = {"expert_shared_count": ("n_shared_experts",)}
_SHARED_NUMBER = {"expert_shared_count": ("num_shared_experts",)}
_SHARED_WIDTH = {"expert_shared_feed_forward_length": ("shared_expert_intermediate_size",)}
_AS_EXPERTS = {"expert_feed_forward_length": ("intermediate_size",)}
_SLIDES = {
    "layer_types": ("attention.sliding_window_pattern", "full_attention", "sliding_attention")
}
_DEEPSEEK2 = GgufArchitecture(
    variants=(("exp_probs_b.bias", "deepseek_v3"),),
    sizes={
        "attention.kv_lora_rank": ("kv_lora_rank",),
        "rope.dimension_count": ("qk_rope_head_dim",),
        **_DENSE_FIRST,
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
    parts=_LATENT | _SHARED | _CORRECTION,
)
_GRANITE_EXPERTS: Parts = {
    **_gate_and_up("block_sparse_moe.input_linear"),
    **_gate_and_up("shared_mlp.input_linear", "ffn_{}_shexp"),
    "shared_mlp.output_linear": (Part("ffn_down_shexp"),),
}

GGUF_ARCHITECTURES: dict[str, GgufArchitecture] = {
    "afmoe": GgufArchitecture(
        sizes={"leading_dense_block_count": ("num_dense_layers",), **_SHARED_NUMBER},
        parts=_SHARED | _CORRECTION | {"self_attn.gate_proj": (Part("attn_gate"),)},
    ),
    "apertus": GgufArchitecture(
        parts={f"act_fn.{name}": () for name in ("alpha_p", "alpha_n", "beta", "eps")}
    ),
    "baichuan": GgufArchitecture(parts=_queries_keys_values("W_pack")),
    "bailingmoe": GgufArchitecture(
        sizes=_DENSE_FIRST | _SHARED_NUMBER,
        parts=_queries_keys_values("query_key_value") | _SHARED,
    ),
    "bailingmoe2": GgufArchitecture(
        sizes={
            "expert_shared_feed_forward_length": ("moe_shared_expert_intermediate_size",),
            **_DENSE_FIRST,
        },
        fixed={"num_shared_experts": 1, "num_nextn_predict_layers": 0},
        present={"use_qkv_bias": "attn_qkv.bias"},
        parts=_SHARED | _CORRECTION,
    ),
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
    "deepseek": GgufArchitecture(
        sizes={"expert_count": ("n_routed_experts",), **_DENSE_FIRST, **_DEEPSEEK_SHARED},
        parts=_SHARED,
    ),
    "deepseek2": _DEEPSEEK2,
    "dots1": GgufArchitecture(sizes=_DENSE_FIRST | _DEEPSEEK_SHARED, parts=_SHARED | _CORRECTION),
    "ernie4_5-moe": GgufArchitecture(
        sizes={
            "expert_shared_count": ("moe_num_shared_experts",),
            "interleave_moe_layer_step": ("moe_layer_interval",),
            "leading_dense_block_count": ("moe_layer_start_index",),
        },
        parts=_SHARED | _CORRECTION,
    ),
    "exaone4": GgufArchitecture(kinds=_SLIDES),
    "exaone-moe": GgufArchitecture(
        sizes=_DENSE_FIRST | _SHARED_NUMBER, kinds=_SLIDES, parts=_SHARED | _CORRECTION
    ),
    "falcon": GgufArchitecture(
        present={
            "new_decoder_architecture": "attn_norm_2.weight",
            "bias": "attn_qkv.bias",
        },
        may_have={"attention.head_count_kv": ("num_kv_heads",)},
        parts={"ln_attn": (Part("attn_norm_2"),), "ln_mlp": (Part("attn_norm"),)},
    ),
    "glm4moe": GgufArchitecture(
        sizes=_DENSE_FIRST | _DEEPSEEK_SHARED,
        present={"use_qk_norm": "attn_q_norm.weight"},
        fixed={"num_nextn_predict_layers": 0},
        parts=_SHARED | _CORRECTION | _POST_ATTENTION,
    ),
    "gpt-oss": GgufArchitecture(
        may_have=_AS_EXPERTS,
        parts=_POST_ATTENTION
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
        parts=_GRANITE_EXPERTS,
    ),
    "hunyuan-moe": GgufArchitecture(
        may_have={"expert_used_count": ("moe_topk", "num_experts_per_tok")}, parts=_SHARED
    ),
    "internlm2": GgufArchitecture(
        present={"bias": "attn_output.bias"}, parts=_queries_keys_values("attention.wqkv")
    ),
    "llama": GgufArchitecture(variants=(("expert_count", "mixtral"),)),
    "llama4": GgufArchitecture(
        sizes={"interleave_moe_layer_step": ("interleave_moe_layer_step",), **_AS_EXPERTS},
        may_have={"feed_forward_length": ("intermediate_size_mlp",)},
        parts=_SHARED
        | {
            "experts.gate_up_proj": tuple(
                Part(f"ffn_{each}_exps", half_swapped) for each in ("gate", "up")
            ),
            "experts.down_proj": (Part("ffn_down_exps", swapped),),
        },
    ),
    "minicpm3": GgufArchitecture(
        sizes={
            "attention.q_lora_rank": ("q_lora_rank",),
            "attention.kv_lora_rank": ("kv_lora_rank",),
            "rope.dimension_count": ("qk_rope_head_dim",),
        },
        differences={"qk_nope_head_dim": ("attention.key_length", "rope.dimension_count")},
        parts={name: part for name, part in _LATENT.items() if name != "kv_b_proj"},
    ),
    "minimax-m2": GgufArchitecture(sizes=_AS_EXPERTS, parts=_CORRECTION),
    "olmo2": GgufArchitecture(variants=(("attention.sliding_window", "olmo3"),), kinds=_SLIDES),
    "pangu-embedded": GgufArchitecture(present={"bias": "attn_q.bias"}),
    "phimoe": GgufArchitecture(present={"lm_head_bias": "output.bias"}),
    "qwen": GgufArchitecture(
        may_have={"attention.key_length": ("kv_channels",)},
        ratios={"kv_channels": ("embedding_length", "attention.head_count")},
        parts={},
    ),
    "qwen2moe": GgufArchitecture(
        sizes=_SHARED_WIDTH, present={"qkv_bias": "attn_q.bias"}, parts=_SHARED
    ),
    "seed_oss": GgufArchitecture(
        present={"attention_out_bias": "attn_output.bias"}, parts=_POST_ATTENTION
    ),
    "stablelm": GgufArchitecture(
        present={"use_qkv_bias": "attn_q.bias", "qk_layernorm": "attn_q_norm.weight"},
        absent={"use_parallel_residual": "ffn_norm.weight"},
    ),
    "starcoder": GgufArchitecture(fixed={"multi_query": True}),
}
