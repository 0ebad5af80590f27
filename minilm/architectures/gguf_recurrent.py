"""llama.cpp's architectures with a state: what their files call Mamba, delta nets and short convolutions.

Source: ggml-org/llama.cpp, `gguf-py/gguf/constants.py`, and `conversion/{mamba,jamba,granite,nemotron,
falcon_h1,lfm2,qwen,kimi_linear}.py`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.gguf_architecture import (
    CORRECTION,
    POST_ATTENTION,
    SHARED_EXPERTS,
    SHARED_WIDTH,
    Fields,
    Flags,
    GgufArchitecture,
)
from minilm.architectures.gguf_decoders import DEEPSEEK2, GRANITE_EXPERTS
from minilm.architectures.gguf_parts import Part, Parts, column, groups, half, rows, sized
from minilm.architectures.recurrent import (
    GROUPS,
    HEADS,
    KEY_HEADS,
    KEY_WIDTH,
    TAPS,
    VALUE_WIDTH,
)
from minilm.ledger.symbols import ONE

# The norm in front of a mixer, not the one inside.
_NORM: Parts = {"}.norm": (Part("attn_norm"),)}
_MAMBA: Parts = {
    "mixer.in_proj": (Part("ssm_in"),),
    "mixer.conv1d": (Part("ssm_conv1d"),),
    "mixer.x_proj": (Part("ssm_x"),),
    "mixer.dt_proj": (Part("ssm_dt"),),
    "mixer.A_log": (Part("ssm_a", suffix=""),),
    "mixer.D": (Part("ssm_d", suffix=""),),
    "mixer.out_proj": (Part("ssm_out"),),
}
_MAMBA2: Parts = {
    "mixer.in_proj": (Part("ssm_in"),),
    "mixer.conv1d": (Part("ssm_conv1d"),),
    "mixer.dt_bias": (Part("ssm_dt", suffix=".bias"),),
    "mixer.A_log": (Part("ssm_a", column, ""),),
    "mixer.D": (Part("ssm_d", column, ""),),
    "mixer.norm": (Part("ssm_norm", groups(GROUPS)),),
    "mixer.out_proj": (Part("ssm_out"),),
}


def _inside(owner: str, parts: Parts) -> Parts:
    """The same under another module's name."""
    return {name.replace("mixer.", f"{owner}.", 1): part for name, part in parts.items()}


_JAMBA: Parts = _inside("mamba", _MAMBA) | {
    f"mamba.{name}_layernorm": (Part(f"ssm_{name}_norm"),) for name in ("dt", "b", "c")
}
_SIZES: Fields = {
    "ssm.conv_kernel": ("conv_kernel",),
    "ssm.state_size": ("state_size",),
    "ssm.inner_size": ("intermediate_size",),
    "ssm.time_step_rank": ("time_step_rank",),
}
_WITHOUT_ATTENTION = ("feed_forward_length", "attention.head_count", "attention.head_count_kv")
# Of Bamba's kin.
_HYBRID: Fields = {
    "ssm.conv_kernel": ("mamba_d_conv",),
    "ssm.state_size": ("mamba_d_state",),
    "ssm.group_count": ("mamba_n_groups",),
    "ssm.time_step_rank": ("mamba_n_heads",),
}
_BIASES: Flags = {"mamba_conv_bias": "ssm_conv1d.bias", "mamba_proj_bias": "ssm_in.bias"}
_KEYS, _VALUES = KEY_HEADS * KEY_WIDTH, HEADS * VALUE_WIDTH
_DELTA: Parts = _inside(
    "linear_attn",
    {
        "mixer.conv1d": (Part("ssm_conv1d"),),
        "mixer.dt_bias": (Part("ssm_dt", suffix=".bias"),),
        "mixer.A_log": (Part("ssm_a", suffix=""),),
        "mixer.norm": (Part("ssm_norm"),),
        "mixer.out_proj": (Part("ssm_out"),),
        "mixer.in_proj_ba": (Part("ssm_ba"),),
        "mixer.in_proj_b": (Part("ssm_beta"),),
        "mixer.in_proj_a": (Part("ssm_alpha"),),
        "mixer.in_proj_z": (Part("attn_gate"),),
        "mixer.in_proj_qkv": (Part("attn_qkv"),),
        "mixer.in_proj_qkvz": (
            Part("attn_qkv", rows(2 * _KEYS + _VALUES)),
            Part("attn_gate", rows(_VALUES)),
        ),
    },
)
_QWEN = GgufArchitecture(
    sizes={
        "ssm.conv_kernel": ("linear_conv_kernel_dim",),
        "ssm.state_size": ("linear_key_head_dim",),
        "ssm.group_count": ("linear_num_key_heads",),
        "ssm.time_step_rank": ("linear_num_value_heads",),
    },
    may_have={"full_attention_interval": ("full_attention_interval",), **SHARED_WIDTH},
    ratios={"linear_value_head_dim": ("ssm.inner_size", "ssm.time_step_rank")},
    parts=_DELTA | SHARED_EXPERTS | POST_ATTENTION,
    # Of files of 2025, whole.
    parts_with=(("ssm_in.weight", {"linear_attn.in_proj_qkvz": (Part("ssm_in"),)}),),
)
_KIMI: Parts = _inside(
    "self_attn",
    {
        **{
            f"mixer.{x}_conv1d": (
                Part(f"ssm_conv1d_{x}", sized(ONE, HEADS * KEY_WIDTH, ONE, TAPS)),
            )
            for x in "qkv"
        },
        **{f"mixer.{x}_proj": (Part(f"attn_{x}"),) for x in "qkv"},
        **{
            f"mixer.{x}_proj": (Part(f"ssm_{x[:-2]}_{x[-1]}"),)
            for x in ("f_a", "f_b", "g_a", "g_b")
        },
        "mixer.b_proj": (Part("ssm_beta"),),
        "mixer.o_proj": (Part("attn_output"),),
        "mixer.dt_bias": (Part("ssm_dt", suffix=".bias"),),
        "mixer.A_log": (Part("ssm_a", suffix=""),),
        "mixer.o_norm": (Part("ssm_norm"),),
    },
)
_LFM2 = GgufArchitecture(
    sizes={
        "shortconv.l_cache": ("conv_L_cache",),
        "attention.head_count_kv": ("num_key_value_heads",),
    },
    kinds={"layer_types": ("conv", (("attention.head_count_kv", "full_attention"),))},
    present={"conv_bias": "shortconv.conv.bias"},
    fixed={"block_auto_adjust_ff_dim": False},
    parts={
        "conv.in_proj": (Part("shortconv.in_proj"),),
        "conv.conv": (Part("shortconv.conv"),),
        "conv.out_proj": (Part("shortconv.out_proj"),),
        "model.embedding_norm": (Part("token_embd_norm"),),
    },
)
_NEMOTRON_H = GgufArchitecture(
    model_type="nemotron_h",
    sizes={
        "ssm.conv_kernel": ("conv_kernel",),
        "ssm.state_size": ("ssm_state_size",),
        "ssm.group_count": ("n_groups",),
        "ssm.time_step_rank": ("mamba_num_heads",),
    },
    ratios={"mamba_head_dim": ("ssm.inner_size", "ssm.time_step_rank")},
    kinds={
        "layers_block_type": (
            "linear_attention",
            (("attention.head_count_kv", "full_attention"), ("feed_forward_length", "mlp")),
        )
    },
    present={
        "use_bias": "ssm_in.bias",
        "use_conv_bias": "ssm_conv1d.bias",
        "mlp_bias": "ffn_up.bias",
    },
    parts=_NORM | _MAMBA2,
)

RECURRENT: dict[str, GgufArchitecture] = {
    "falcon-h1": GgufArchitecture(
        sizes=_HYBRID | {"ssm.inner_size": ("mamba_d_ssm",)},
        present={
            **_BIASES,
            "projectors_bias": "ssm_out.bias",
            "mamba_rms_norm": "ssm_norm.weight",
        },
        parts=_inside("mamba", _MAMBA2) | {"pre_ff_layernorm": (Part("ffn_norm", suffix=""),)},
    ),
    "granitehybrid": GgufArchitecture(
        sizes={
            **_HYBRID,
            "expert_shared_feed_forward_length": ("shared_intermediate_size",),
            "attention.head_count_kv": ("num_key_value_heads",),
        },
        ratios={"mamba_expand": ("ssm.inner_size", "embedding_length")},
        kinds={"layer_types": ("mamba", (("attention.head_count_kv", "attention"),))},
        present=_BIASES,
        fixed={"num_local_experts": 0},
        parts=_inside("mamba", _MAMBA2) | GRANITE_EXPERTS,
        parts_with=(
            (
                "ffn_gate.weight",
                {
                    "shared_mlp.input_linear": (Part("ffn_gate", half), Part("ffn_up", half)),
                    "shared_mlp.output_linear": (Part("ffn_down"),),
                },
            ),
        ),
    ),
    "jamba": GgufArchitecture(
        sizes={
            "ssm.conv_kernel": ("mamba_d_conv",),
            "ssm.state_size": ("mamba_d_state",),
            "ssm.time_step_rank": ("mamba_dt_rank",),
            "expert_count": ("num_experts",),
        },
        ratios={"mamba_expand": ("ssm.inner_size", "embedding_length")},
        periods={
            ("attn_layer_period", "attn_layer_offset"): "attention.head_count_kv",
            ("expert_layer_period", "expert_layer_offset"): "ffn_gate_inp.weight",
        },
        present=_BIASES,
        parts=_JAMBA,
    ),
    "kimi-linear": replace(
        DEEPSEEK2,
        variants=(),
        sizes=DEEPSEEK2.sizes
        | {
            # Both kinds of layers have as many.
            "attention.head_count": ("num_attention_heads", "linear_num_heads"),
            "attention.head_count_kv": ("num_key_value_heads",),
            "kda.head_dim": ("linear_head_dim",),
            "ssm.conv_kernel": ("linear_conv_kernel_dim",),
        },
        kinds={
            "layer_types": (
                "linear_attention",
                (("attention.head_count_kv", "full_attention"),),
            )
        },
        parts=DEEPSEEK2.parts | _KIMI,
    ),
    "lfm2": _LFM2,
    "lfm2moe": replace(
        _LFM2,
        sizes=_LFM2.sizes | {"leading_dense_block_count": ("num_dense_layers",)},
        present=_LFM2.present | {"use_expert_bias": "exp_probs_b.bias"},
        parts=_LFM2.parts | CORRECTION,
    ),
    "mamba": GgufArchitecture(
        model_type="mamba",
        sizes=_SIZES,
        without=_WITHOUT_ATTENTION,
        present={"use_bias": "ssm_in.bias", "use_conv_bias": "ssm_conv1d.bias"},
        parts=_NORM | _MAMBA,
    ),
    "mamba2": GgufArchitecture(
        sizes={
            "ssm.conv_kernel": ("conv_kernel",),
            "ssm.state_size": ("state_size",),
            "ssm.group_count": ("n_groups",),
            "ssm.time_step_rank": ("num_heads",),
        },
        without=_WITHOUT_ATTENTION,
        ratios={
            "head_dim": ("ssm.inner_size", "ssm.time_step_rank"),
            "expand": ("ssm.inner_size", "embedding_length"),
        },
        present={"use_bias": "ssm_in.bias", "use_conv_bias": "ssm_conv1d.bias"},
        parts=_NORM | _MAMBA2,
    ),
    "nemotron_h": _NEMOTRON_H,
    "nemotron_h_moe": replace(
        _NEMOTRON_H,
        sizes=_NEMOTRON_H.sizes
        | {
            "expert_shared_feed_forward_length": ("moe_shared_expert_intermediate_size",),
        },
        may_have={"moe_latent_size": ("moe_latent_size",)},
        kinds={
            "layers_block_type": (
                "linear_attention",
                (("attention.head_count_kv", "full_attention"), ("feed_forward_length", "moe")),
            )
        },
        parts=_NEMOTRON_H.parts
        | SHARED_EXPERTS
        | CORRECTION
        | {
            "fc1_latent_proj": (Part("ffn_latent_down"),),
            "fc2_latent_proj": (Part("ffn_latent_up"),),
        },
    ),
    "qwen3next": _QWEN,
    "qwen35": _QWEN,
    "qwen35moe": replace(_QWEN, without=("feed_forward_length",)),
}
