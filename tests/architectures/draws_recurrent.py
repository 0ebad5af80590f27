"""Random small configs of the types with recurrent layers, alone or beside attention."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from tests.architectures.draws_decoders import (
    BIASES,
    FLAG,
    HEAD_WIDTH,
    SPARSE,
    WIDTH,
    Config,
    Draw,
    _any_head_width,
    _decoder,
    _latent,
    _null_heads,
)

MIXERS = ("linear_attention", "full_attention")


def _with(draw: Draw, more: Draw) -> Draw:
    return lambda random: draw(random) | more(random)


def _attends(draw: Draw, kinds: Sequence[str] = MIXERS, *, name: str = "layer_types") -> Draw:
    """The last layer has attention, without which transformers cannot run these; or enough for every kind."""

    def drawn(random: Random) -> Config:
        config = draw(random)
        number = config["num_hidden_layers"]
        if random.random() < 0.5:
            return config | {"num_hidden_layers": number + 3}
        listed = [random.choice(kinds) for _ in range(number - 1)]
        return config | {name: [*listed, "full_attention"]}

    return drawn


def _deltas(random: Random) -> Config:
    """The sizes of Qwen's linear attention."""
    groups = random.randint(1, 3)
    return {
        "linear_num_key_heads": groups,
        "linear_num_value_heads": groups * random.randint(1, 2),
        "linear_key_head_dim": random.randint(1, 9),
        "linear_value_head_dim": random.randint(1, 9),
        "linear_conv_kernel_dim": random.randint(1, 5),
    }


_QWEN: dict[str, Any] = {
    "head_dim": "head_dim",
    "attention_bias": FLAG,
}
_QWEN_MOE: dict[str, Sequence[Any]] = {
    "moe_intermediate_size": WIDTH,
    "shared_expert_intermediate_size": WIDTH,
}


def _mamba(random: Random) -> Config:
    config: Config = {
        "hidden_size": random.randint(1, 40),
        "num_hidden_layers": random.randint(1, 3),
        "pad_token_id": None,
    }
    options: dict[str, Sequence[Any]] = {
        "vocab_size": range(2, 90),
        "state_size": range(1, 9),
        "expand": range(1, 4),
        "conv_kernel": range(1, 5),
        "time_step_rank": (*range(1, 5), "auto"),
        "use_bias": FLAG,
        "use_conv_bias": FLAG,
        "tie_word_embeddings": FLAG,
    }
    return config | {n: random.choice(v) for n, v in options.items() if random.random() < 0.6}


def _mamba2(random: Random) -> Config:
    config = _mamba(random)
    groups, width = random.randint(1, 2), random.randint(1, 6)
    heads = groups * random.randint(1, 3)
    expand = random.randint(1, 2)
    return config | {
        "hidden_size": heads * width,
        "expand": expand,
        "num_heads": heads * expand,
        "head_dim": width,
        "n_groups": groups,
    }


def _mamba2_part(random: Random) -> Config:
    """Bamba's fields; the heads divide twice the width that `_decoder` draws."""
    options: dict[str, Sequence[Any]] = {
        "mamba_d_state": range(1, 9),
        "mamba_d_conv": range(1, 5),
        "mamba_conv_bias": FLAG,
        "mamba_proj_bias": FLAG,
        "mamba_expand": (2, 4),
    }
    drawn = {n: random.choice(v) for n, v in options.items() if random.random() < 0.6}
    groups = random.randint(1, 2)
    return drawn | {"mamba_n_heads": 2 * random.randint(1, 2), "mamba_n_groups": groups}


def _falcon_h1(random: Random) -> Config:
    draw = _with(_decoder(head_dim="head_dim", **BIASES, **_FALCON), _mamba2_part)
    width = 4 * random.randint(1, 5)
    return draw(random) | {"mamba_d_ssm": random.choice([width, None])}


def _nemotron_h(random: Random) -> Config:
    config = _decoder(
        head_dim="head_dim",
        experts="n_routed_experts",
        moe_intermediate_size=WIDTH,
        moe_shared_expert_intermediate_size=WIDTH,
        moe_latent_size=(None, *WIDTH),
        ssm_state_size=range(1, 9),
        conv_kernel=range(1, 5),
        mamba_head_dim=range(1, 9),
        use_conv_bias=FLAG,
        use_bias=FLAG,
        mlp_bias=FLAG,
    )(random)
    number = config.pop("num_hidden_layers")
    groups = random.randint(1, 3)
    config |= {"n_groups": groups, "mamba_num_heads": groups * random.randint(1, 3)}
    pattern = "".join(random.choice("ME*-") for _ in range(number)) + "*"
    names = {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}
    listed = [names[letter] for letter in pattern]
    config.pop("tie_word_embeddings", None)
    return config | random.choice(
        [{"hybrid_override_pattern": pattern}, {"layers_block_type": listed}]
    )


def _jamba(random: Random) -> Config:
    config = _decoder(
        experts="num_experts",
        mamba_d_state=range(1, 9),
        mamba_d_conv=range(1, 5),
        mamba_expand=range(1, 4),
        mamba_dt_rank=(*range(1, 5), "auto"),
        mamba_conv_bias=FLAG,
        mamba_proj_bias=FLAG,
    )(random)
    periods = {}
    for name in ("attn_layer", "expert_layer"):
        period = random.randint(1, 3)
        periods |= {f"{name}_period": period, f"{name}_offset": random.randrange(period)}
    return config | periods | {"num_hidden_layers": config["num_hidden_layers"] + 2}


def _bamba(random: Random) -> Config:
    config = _with(_decoder(**BIASES), _mamba2_part)(random)
    number = config["num_hidden_layers"]
    listed = [i for i in range(number) if i == number - 1 or random.random() < 0.5]
    return config | {"attn_layer_indices": listed}


def _granite(random: Random) -> Config:
    draw = _decoder(
        attention_bias=FLAG,
        experts="num_local_experts",
        shared_intermediate_size=WIDTH,
    )
    config = _with(draw, _mamba2_part)(random)
    config |= {"num_local_experts": 0} if random.random() < 0.3 else {}
    kinds = random.choice([MIXERS, ("mamba", "attention")])
    listed = [random.choice(kinds) for _ in range(config["num_hidden_layers"])]
    name = random.choice(["layer_types", "layers_block_type"])
    return config | {name: [*listed[1:], kinds[1]]}


_CONV = ("conv", "full_attention")
_LFM: dict[str, Sequence[Any]] = {"conv_L_cache": range(1, 5), "conv_bias": FLAG}
_FALCON: dict[str, Sequence[Any]] = {"mamba_rms_norm": FLAG, "projectors_bias": FLAG}


def _lfm2(random: Random) -> Config:
    config = _decoder(
        **_LFM,
        block_auto_adjust_ff_dim=FLAG,
        block_multiple_of=range(1, 9),
        block_ffn_dim_multiplier=(1.0, 1.3),
        tie_embedding=FLAG,
        block_ff_dim=range(2, 40),
    )(random)
    if random.random() < 0.3:
        return config
    last = config["num_hidden_layers"] - 1
    if random.random() < 0.5:
        return config | {"full_attn_idxs": [last]}
    return config | {"layer_types": [*(random.choice(_CONV) for _ in range(last)), _CONV[1]]}


def _lfm2_moe(random: Random) -> Config:
    config = _decoder(
        **_LFM,
        experts="num_experts",
        moe_intermediate_size=WIDTH,
        num_dense_layers=range(4),
        use_expert_bias=FLAG,
    )(random)
    last = config["num_hidden_layers"] - 1
    return config | {"layer_types": [*(random.choice(_CONV) for _ in range(last)), _CONV[1]]}


def _kimi_linear(random: Random) -> Config:
    config = _latent(
        experts="num_experts",
        active="num_experts_per_token",
        moe_intermediate_size=WIDTH,
        num_shared_experts=range(1, 4),
        first_k_dense_replace=range(4),
        lists={"mlp_layer_types": SPARSE},
    )(random)
    number = config["num_hidden_layers"] + 1
    config["num_hidden_layers"] = number
    config.pop("mlp_layer_types", None)
    sizes = {"num_heads": random.randint(1, 3), "head_dim": random.randint(1, 9)}
    if random.random() < 0.5:
        listed = [random.choice(MIXERS) for _ in range(number - 1)] + [MIXERS[1]]
        own = {f"linear_{name}": value for name, value in sizes.items()}
        return config | own | {"layer_types": listed, "linear_conv_kernel_dim": 3}
    attends = [i for i in range(1, number) if random.random() < 0.5] + [number]
    lists = {"full_attn_layers": attends}
    lists["kda_layers"] = [i for i in range(1, number) if i not in attends]
    return config | {"linear_attn_config": {**sizes, **lists, "short_conv_kernel_size": 3}}


def _bailing_hybrid(random: Random) -> Config:
    config = _latent(
        experts="num_experts",
        moe_intermediate_size=WIDTH,
        n_shared_experts=range(1, 4),
        first_k_dense_replace=range(4),
        short_conv_kernel_size=range(1, 5),
        layer_group_size=(1, 2),
        fixed={"n_group": 1, "topk_group": 1, "head_dim": 5},
    )(random)
    config.pop("q_lora_rank", None)
    return config | {"num_hidden_layers": config["num_hidden_layers"] + 5}


def _equal_deltas(random: Random) -> Config:
    """transformers divides the one convolution of OLMo Hybrid into equal thirds when it writes it."""
    sizes = _deltas(random)
    heads, width = sizes["linear_num_key_heads"], sizes["linear_key_head_dim"]
    return sizes | {"linear_num_value_heads": heads, "linear_value_head_dim": width}


def _olmo(random: Random) -> Config:
    """Both kinds of layers, which transformers wants."""
    config = _null_heads(_decoder(attention_bias=FLAG))(random)
    if random.random() < 0.5:
        return config | {"num_hidden_layers": random.randint(4, 6)}
    return config | {"num_hidden_layers": 3, "layer_types": [random.choice(MIXERS), *MIXERS]}


def _recurrent_gemma(random: Random) -> Config:
    config = _decoder(
        attention_bias=FLAG,
        attention_window_size=(3, 6),
        conv1d_width=range(2, 5),
        intermediate_size=range(2, 40, 2),
    )(random)
    config.pop("max_position_embeddings", None)
    width = config["num_attention_heads"] * random.randint(1, 9)
    config |= random.choice([{}, {"lru_width": width}, {"lru_width": None}])
    return config | {"block_types": random.choice([["recurrent", "attention"], ["attention"]])}


def _rwkv(random: Random) -> Config:
    options: dict[str, Sequence[Any]] = {
        "vocab_size": range(2, 90),
        "attention_hidden_size": (None,),
        "intermediate_size": (None, *WIDTH),
        "context_length": range(8, 64),
        "tie_word_embeddings": FLAG,
    }
    drawn = {n: random.choice(v) for n, v in options.items() if random.random() < 0.6}
    return drawn | {"hidden_size": random.randint(1, 40), "num_hidden_layers": random.randint(1, 3)}


def _xlstm(random: Random) -> Config:
    options: dict[str, Sequence[Any]] = {
        "vocab_size": range(2, 90),
        "use_bias": FLAG,
        "weight_mode": ("single", "fused"),
        "ffn_proj_factor": (1.5, 2.667),
        "ffn_round_up_to_multiple_of": range(1, 9),
        "num_heads": (2, 4),
    }
    config = {n: random.choice(v) for n, v in options.items() if random.random() < 0.6}
    # Its cache rounds the widths up to multiples of 64.
    return config | {"hidden_size": 128, "num_hidden_layers": random.randint(1, 3)}


def _zamba(random: Random) -> Config:
    """Several layers with the shared block: transformers cannot tie a single one, nor run without any."""
    config = _decoder(
        mamba_d_state=range(1, 9),
        mamba_d_conv=range(1, 5),
        mamba_dt_rank=(*range(1, 5), "auto"),
        mamba_conv_bias=FLAG,
        mamba_proj_bias=FLAG,
        n_mamba_heads=(1, 2),
        mamba_expand=(2, 4),
        fixed={"tie_word_embeddings": True},
    )(random)
    number = random.randint(2, 4)
    kinds = ["hybrid"] * number + ["mamba"] * random.randint(0, 3)
    random.shuffle(kinds)
    if random.random() < 0.5:
        return config | {"layers_block_type": kinds, "num_hidden_layers": len(kinds)}
    return config | {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_hidden_layers": 3 + number,
    }


def _zamba2(random: Random) -> Config:
    """At least as many layers with a shared block as there are blocks; adapters want the usual head width."""
    config = _decoder(
        mamba_d_state=range(1, 9),
        mamba_d_conv=range(1, 5),
        mamba_ngroups=(1, 2),
        use_conv_bias=FLAG,
        add_bias_linear=FLAG,
        use_shared_attention_adapter=FLAG,
        adapter_rank=range(1, 5),
        use_long_context=FLAG,
        fixed={"n_mamba_heads": 4, "tie_word_embeddings": True},
    )(random)
    number, blocks = random.randint(0, 3), random.randint(1, 2)
    kinds = [random.choice(("mamba", "hybrid")) for _ in range(number)]
    kinds += ["mamba", *["hybrid"] * blocks]
    config |= {"layers_block_type": kinds, "num_hidden_layers": len(kinds)}
    if random.random() < 0.5:
        config["attention_hidden_size"] = 2 * config["hidden_size"]
    if random.random() < 0.5 and not config.get("use_shared_attention_adapter"):
        config["attention_head_dim"] = random.choice(HEAD_WIDTH)
    return config | {"num_mem_blocks": blocks}


DRAWS: dict[str, Draw] = {
    "qwen3_next": _with(
        _attends(
            _decoder(
                **_QWEN,
                **_QWEN_MOE,
                experts="num_experts",
                decoder_sparse_step=(1, 2),
                mlp_only_layers=([0], []),
                full_attention_interval=(1, 2, 3),
            )
        ),
        _deltas,
    ),
    "qwen3_5_text": _with(_attends(_decoder(**_QWEN, full_attention_interval=(1, 2, 3))), _deltas),
    "qwen3_5_moe_text": _with(
        _attends(_decoder(**_QWEN, **_QWEN_MOE, experts="num_experts")), _deltas
    ),
    "lara_mini": _with(
        _attends(
            _decoder(
                **_QWEN,
                experts="num_experts",
                moe_intermediate_size=WIDTH,
                shared_expert_intermediate_size=WIDTH,
                sliding_window=(3, 6),
            ),
            (*MIXERS, "sliding_attention"),
        ),
        _deltas,
    ),
    "mamba": _mamba,
    "falcon_mamba": _mamba,
    "mamba2": _mamba2,
    "jamba": _jamba,
    "bamba": _bamba,
    "falcon_h1": _falcon_h1,
    "granitemoehybrid": _granite,
    "nemotron_h": _nemotron_h,
    "lfm2": _lfm2,
    "lfm2_moe": _lfm2_moe,
    "lfm3": _attends(
        _decoder(
            head_dim="head_dim",
            **_LFM,
            attention_bias=FLAG,
            sliding_window=(3, 6),
            use_sandwich_norm=FLAG,
            use_attention_gate=FLAG,
        ),
        ("conv", "sliding_attention", "full_attention"),
    ),
    "minimax": _attends(
        _decoder(head_dim="head_dim", experts="num_local_experts", block_size=range(2, 9))
    ),
    "kimi_linear": _kimi_linear,
    "bailing_hybrid": _bailing_hybrid,
    "olmo_hybrid": _with(_olmo, _equal_deltas),
    "recurrent_gemma": _any_head_width(_recurrent_gemma),
    "rwkv": _rwkv,
    "xlstm": _xlstm,
    "zamba": _zamba,
    "zamba2": _zamba2,
    "zaya": _decoder(
        head_dim="head_dim",
        attention_bias=FLAG,
        lm_head_bias=FLAG,
        moe_intermediate_size=WIDTH,
        num_experts=range(1, 5),
        router_hidden_size=WIDTH,
        cca_time0=range(2, 4),
        cca_time1=range(2, 4),
        fixed={"sliding_window": 3},
        lists={"layer_types": ("hybrid", "hybrid_sliding")},
    ),
}
