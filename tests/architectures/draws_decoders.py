"""Random small configs of the other decoders: a line a type with the options that change names or shapes.

Each option is drawn or left out, so that its default in our declaration must be the architecture's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

Config = dict[str, Any]
Draw = Callable[[Random], Config]

FLAG = (False, True)
WIDTH = range(1, 40)
HEAD_WIDTH = range(2, 20, 2)
WINDOW = (None, 3, 6)
SLIDES = ("sliding_attention", "full_attention")
SPARSE = ("dense", "sparse")
BIASES = {"attention_bias": FLAG, "mlp_bias": FLAG}


def _decoder(
    *,
    grouped: bool = True,
    head_dim: str = "",
    fixed: Config | None = None,
    experts: str = "",
    active: str = "num_experts_per_tok",
    lists: Mapping[str, Sequence[str]] | None = None,
    **options: Sequence[Any],
) -> Draw:
    """Llama's sizes and ``options``, each with its values; ``lists`` name a kind for every layer.

    ``head_dim`` is the field of a head width that need not be width / heads. ``fixed`` is in every draw.
    """

    def draw(random: Random) -> Config:
        kv_heads = random.randint(1, 3) if grouped else 1
        heads = kv_heads * random.randint(1, 3)
        config: Config = {
            "hidden_size": heads * 2 * random.randint(1, 4),
            "num_attention_heads": heads,
            "num_hidden_layers": random.randint(1, 4),
            "pad_token_id": None,
        }
        if grouped:
            config["num_key_value_heads"] = kv_heads
        if head_dim:
            config[head_dim] = 2 * random.randint(1, 9)
        if experts:
            config[experts] = random.randint(2, 5)
            config[active] = random.randint(1, config[experts])
        usual = {
            "vocab_size": range(2, 90),
            "intermediate_size": range(1, 90),
            "tie_word_embeddings": FLAG,
            "max_position_embeddings": range(8, 64),
        }
        for name, values in (usual | options).items():
            if random.random() < 0.6:
                config[name] = random.choice(values)
        for name, kinds in (lists or {}).items():
            if random.random() < 0.5:
                config[name] = [random.choice(kinds) for _ in range(config["num_hidden_layers"])]
        return config | (fixed or {})

    return draw


def _inside(name: str, draw: Draw) -> Draw:
    """The text part of a larger model's config."""
    return lambda random: {name: draw(random)}


def _null_heads(draw: Draw) -> Draw:
    """In some draws as many key/value heads as heads, said by null."""

    def drawn(random: Random) -> Config:
        config = draw(random)
        return config | {"num_key_value_heads": None} if random.random() < 0.3 else config

    return drawn


def _any_head_width(draw: Draw) -> Draw:
    """In some draws a head width of its own, which the configuration class does not name as a field."""

    def drawn(random: Random) -> Config:
        config = draw(random)
        return config | {"head_dim": random.choice(HEAD_WIDTH)} if random.random() < 0.5 else config

    return drawn


def _own_head_width(draw: Draw) -> Draw:
    """The head width is given, and is width / heads."""

    def drawn(random: Random) -> Config:
        config = draw(random)
        return config | {"head_dim": config["hidden_size"] // config["num_attention_heads"]}

    return drawn


def _same_biases(draw: Draw) -> Draw:
    """InternLM3 wants both or none."""

    def drawn(random: Random) -> Config:
        config = draw(random)
        biased = random.random() < 0.5
        names = random.choice([("attention_bias", "mlp_bias"), ("qkv_bias", "bias")])
        return config | dict.fromkeys(names, biased)

    return drawn


def _even_heads(draw: Draw) -> Draw:
    """Differential attention wants pairs, of both kinds, and MiMo heads for twice the key/value heads."""

    def drawn(random: Random) -> Config:
        config = draw(random)
        names = ["num_attention_heads", "hidden_size"]
        names += ["num_key_value_heads"] if "v_head_dim" not in config else []
        return config | {name: 2 * config[name] for name in names}

    return drawn


def _latent(**options: Any) -> Draw:
    """Multi-head latent attention has as many key/value heads as heads."""
    sizes: dict[str, Sequence[Any]] = {
        "q_lora_rank": WIDTH,
        "kv_lora_rank": range(2, 30, 2),
        "qk_rope_head_dim": range(2, 10, 2),
        "qk_nope_head_dim": range(2, 10, 2),
        "v_head_dim": WIDTH,
        "attention_bias": FLAG,
    }
    draw = _decoder(**{**sizes, **options})

    def drawn(random: Random) -> Config:
        config = draw(random)
        return config | {"num_key_value_heads": config["num_attention_heads"]}

    return drawn


_DEEPSEEK: dict[str, Any] = {
    "experts": "n_routed_experts",
    "fixed": {"n_group": 1, "topk_group": 1},
    "moe_intermediate_size": WIDTH,
    "n_shared_experts": range(1, 4),
}
_INDEXED: dict[str, Any] = _DEEPSEEK | {
    "first_k_dense_replace": range(4),
    "lists": {"mlp_layer_types": SPARSE},
    "index_n_heads": range(1, 5),
    "index_head_dim": range(64, 72, 2),
}


def _listed_active(draw: Draw) -> Draw:
    """In some draws the number of active experts is a list with that of every layer."""

    def drawn(random: Random) -> Config:
        config = _null_heads(draw)(random)
        listed = [config["moe_topk"]] * config["num_hidden_layers"]
        return config | ({"moe_topk": listed} if random.random() < 0.5 else {})

    return drawn


def _heads_by_layer(draw: Draw) -> Draw:
    def drawn(random: Random) -> Config:
        config = draw(random)
        groups = config["num_key_value_heads"]
        heads = [groups * random.randint(1, 3) for _ in range(config["num_hidden_layers"])]
        return config | ({"num_attention_heads_per_layer": heads} if random.random() < 0.5 else {})

    return drawn


def _shared_keys(random: Random) -> tuple[int, list[str], int]:
    """Layers, their kinds, and how many of the last take another's keys: both kinds stand before those."""
    kinds = [*SLIDES, *(random.choice(SLIDES) for _ in range(random.randint(0, 3))), SLIDES[1]]
    return len(kinds), kinds, random.randint(0, len(kinds) - 2)


def _gemma3n(random: Random) -> Config:
    number, kinds, shared = _shared_keys(random)
    config = _decoder(
        head_dim="head_dim",
        attention_bias=FLAG,
        sliding_window=(3, 6),
        fixed={"vocab_size_per_layer_input": random.randint(20, 90)},
        altup_num_inputs=range(2, 6),
        laurel_rank=range(1, 9),
    )(random)
    config |= {"num_hidden_layers": number, "layer_types": kinds, "num_kv_shared_layers": shared}
    config |= {"hidden_size_per_layer_input": random.randint(1, 9)}
    if random.random() < 0.5:
        config["intermediate_size"] = [random.randint(1, 3) for _ in kinds]
    return config


def _gemma4(random: Random) -> Config:
    number, kinds, shared = _shared_keys(random)
    config = _decoder(
        head_dim="head_dim",
        attention_bias=FLAG,
        sliding_window=(3, 6),
        fixed={"vocab_size_per_layer_input": random.randint(20, 90)},
        hidden_size_per_layer_input=range(3),
        attention_k_eq_v=FLAG,
        use_double_wide_mlp=FLAG,
        global_head_dim=(6, 8),
        num_global_key_value_heads=(1,),
    )(random)
    config |= {"num_hidden_layers": number, "layer_types": kinds, "num_kv_shared_layers": shared}
    if random.random() < 0.5:
        config |= {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2}
        config |= {"moe_intermediate_size": random.randint(1, 9)}
    if config.get("hidden_size_per_layer_input") == 0:
        config["num_kv_shared_layers"] = 0  # transformers wants the inputs where it shares
    return config


def _gemma4_unified(random: Random) -> Config:
    return _gemma4(random) | {"enable_moe_block": False}


def _deepseek_v4(random: Random) -> Config:
    kinds = ("sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention")
    config = _decoder(
        experts="n_routed_experts",
        moe_intermediate_size=WIDTH,
        q_lora_rank=WIDTH,
        o_lora_rank=WIDTH,
        index_n_heads=range(1, 4),
        index_head_dim=range(64, 72, 2),
        hc_mult=range(2, 5),
        sliding_window=(3, 6),
        mlp_bias=FLAG,
        num_hash_layers=range(4),
        compress_rate_csa=range(4, 6),
        lists={"layer_types": kinds, "mlp_layer_types": ("hash_moe", "moe")},
    )(random)
    config.pop("intermediate_size", None)
    config |= {"num_key_value_heads": 1, "head_dim": 8 * random.randint(1, 3)}
    groups = random.choice([1, config["num_attention_heads"]])
    return config | {"o_groups": groups, "partial_rotary_factor": 0.5}


def _dots3_note(random: Random) -> Config:
    config = _latent(
        **_INDEXED
        | {
            "lists": {
                "layer_types": ("sliding_attention", "indexed_attention"),
                "mlp_layer_types": SPARSE,
            }
        },
        sliding_window=(3, 6),
        shared_experts_intermediate_size=WIDTH,
        swa_q_lora_rank=WIDTH,
        swa_kv_lora_rank=WIDTH,
        swa_v_head_dim=WIDTH,
        swa_head_dim=(24, 32),
        use_dsa=FLAG,
        use_sliding_window=FLAG,
    )(random)
    heads = random.randint(1, 4)
    config |= {"swa_num_attention_heads": heads, "swa_num_key_value_heads": heads}
    return config | {"swa_qk_nope_head_dim": 2 * random.randint(1, 8)}


def _phi4_multimodal(random: Random) -> Config:
    config = _null_heads(_decoder(sliding_window=WINDOW, fixed={"pad_token_id": 0}))(random)
    heads = random.randint(1, 3)
    vision = {
        "hidden_size": heads * 2 * random.randint(1, 4),
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(2, 3),
        "intermediate_size": random.randint(1, 20),
        "image_size": random.randint(14, 30),
        "patch_size": random.randint(4, 7),
        "num_channels": random.randint(1, 3),
    }
    audio = {
        "hidden_size": heads * 2 * random.randint(1, 4),
        "num_attention_heads": heads,
        "num_blocks": random.randint(2, 3),
        "intermediate_size": random.randint(1, 20),
        "ext_pw_out_channel": random.randint(1, 20),
        "depthwise_separable_out_channel": random.randint(1, 20),
        "depthwise_multiplier": random.randint(1, 2),
        "kernel_size": random.randint(1, 4),
        "input_size": random.randint(10, 40),
        "time_reduction": random.choice([2, 4, 8]),
        "bias_max_distance": random.randint(2, 9),
        "bias_symmetric": random.random() < 0.5,
        "nemo_conv_channels": random.randint(1, 9),
        "downsample_rate": random.randint(1, 2),
    }
    if random.random() < 0.5:
        audio["head_dim"] = random.randint(1, 9)
    for part in (config, audio):  # one more is no multiple of the heads
        part["hidden_size"] += random.randint(0, 1) if part["num_attention_heads"] > 1 else 0
    return config | {"vision_config": vision, "audio_config": audio}


def _dbrx(random: Random) -> Config:
    groups = random.randint(1, 3)
    heads = groups * random.randint(1, 3)
    experts = random.randint(2, 5)
    width = heads * 2 * random.randint(1, 4)
    names = random.choice(
        [
            ("d_model", "n_heads", "n_layers"),
            ("d_model", "num_attention_heads", "num_hidden_layers"),
        ]
    )
    return {
        **dict(zip(names, (width, heads, random.randint(1, 3)), strict=True)),
        "vocab_size": random.randint(2, 90),
        "attn_config": {"kv_n_heads": groups, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {
            "hidden_size": width,
            "ffn_hidden_size": random.randint(1, 40),
            "moe_num_experts": experts,
            "moe_top_k": random.randint(1, experts),
        },
    }


def _dory(random: Random) -> Config:
    """Layers before, in and behind the loop; in some draws their halves are listed, as in NVIDIA's files."""
    config = _decoder(
        head_dim="head_dim",
        sliding_window=(3, 6),
        n_recurrent_loops=range(1, 4),
        recurrent_kv_cache_mode=("per_loop", "last_loop", "last_loop"),
        **BIASES,
    )(random)
    before, between, behind = (random.randint(*ends) for ends in ((0, 2), (1, 4), (0, 2)))
    number = before + between + behind
    sizes = {"num_hidden_layers": number, "n_input_layers": before, "n_output_layers": behind}
    if random.random() < 0.5:
        sizes["n_recurrent_layers"] = between
    kinds = [random.choice(SLIDES) for _ in range(number)]
    if random.random() < 0.3:
        return config | sizes | {"layer_types": kinds}
    if random.random() < 0.5:
        sizes = {name: 2 * value for name, value in sizes.items()}
        sizes["layer_types"] = [half for kind in kinds for half in (kind, "mlp")]
    return config | sizes


def _longcat_flash(random: Random) -> Config:
    config = _latent(
        experts="n_routed_experts",
        active="moe_topk",
        zero_expert_num=range(3),
        expert_ffn_hidden_size=WIDTH,
    )(random)
    del config["num_hidden_layers"]
    width = config.pop("intermediate_size", 8)
    if random.random() < 0.5:
        nope, rope = config.get("qk_nope_head_dim", 128), config.get("qk_rope_head_dim", 64)
        config["qk_head_dim"] = nope + rope
    count = random.randint(1, 3)
    of_layers = random.choice([{"num_layers": count}, {"num_hidden_layers": 2 * count}])
    if random.random() < 0.3:
        of_layers = {"num_layers": count, "num_hidden_layers": 2 * count}
    return config | of_layers | {"ffn_hidden_size": width}


BART_DECODERS = ("bart", "mbart", "mvp", "pegasus", "plbart", "blenderbot", "blenderbot-small")
BERT_DECODERS = (
    *("bert", "camembert", "data2vec-text", "megatron-bert", "roberta", "roberta-prelayernorm"),
    *("xlm-roberta", "xlm-roberta-xl"),
)


def _bart(random: Random) -> Config:
    heads = random.randint(1, 4)
    config: Config = {
        "d_model": heads * 2 * random.randint(2, 4),
        "decoder_attention_heads": heads,
        "decoder_layers": random.randint(1, 3),
        "pad_token_id": 0,
    }
    options: dict[str, Sequence[Any]] = {
        "vocab_size": range(2, 90),
        "decoder_ffn_dim": WIDTH,
        "max_position_embeddings": range(8, 64),
        "tie_word_embeddings": FLAG,
        "use_bias": FLAG,
    }
    return config | {n: random.choice(v) for n, v in options.items() if random.random() < 0.6}


def _marian(random: Random) -> Config:
    config = _bart(random)
    if config.get("tie_word_embeddings") is False:
        return config
    return config | {"decoder_vocab_size": random.choice([None, 50])}


def _trocr(random: Random) -> Config:
    config = _bart(random) | {"layernorm_embedding": random.random() < 0.5}
    config |= {"use_learned_position_embeddings": random.random() < 0.5}
    return config | {"cross_attention_hidden_size": random.choice([None, 12])}


def _whisper(random: Random) -> Config:
    return _bart(random) | {"max_target_positions": random.randint(8, 64)}


def _bert(**options: Any) -> Draw:
    fixed = options.pop("fixed", {"pad_token_id": 0})
    types = {"type_vocab_size": range(1, 4)}
    return _decoder(grouped=False, fixed=fixed, **types, **options)


DRAWS: dict[str, Draw] = {
    "cwm": _decoder(
        head_dim="head_dim", mlp_bias=FLAG, sliding_window=(3, 6), lists={"layer_types": SLIDES}
    ),
    "emu3": _inside("text_config", _decoder(fixed={"pad_token_id": 0})),
    "ernie4_5": _null_heads(_decoder(head_dim="head_dim", use_bias=FLAG)),
    "helium": _own_head_width(_decoder(**BIASES)),
    "internlm3": _null_heads(_same_biases(_decoder(head_dim="head_dim"))),
    "iquestcoder": _null_heads(_decoder(head_dim="head_dim", **BIASES)),
    "ministral": _decoder(
        head_dim="head_dim", sliding_window=(3, 6), lists={"layer_types": SLIDES}
    ),
    "ministral3": _decoder(head_dim="head_dim", sliding_window=WINDOW),
    "seed_oss": _null_heads(_decoder(head_dim="head_dim", attention_out_bias=FLAG, **BIASES)),
    "deepseek_v32": _latent(**_INDEXED),
    "glm_moe_dsa": _latent(
        **_INDEXED, index_topk_freq=range(1, 4), index_skip_topk_offset=range(1, 3)
    ),
    "glm4_moe_lite": _latent(**_DEEPSEEK, lists={"mlp_layer_types": SPARSE}),
    "axk1": _latent(**_DEEPSEEK, first_k_dense_replace=range(4), lists={"mlp_layer_types": SPARSE}),
    "minicpm3": _latent(mlp_bias=FLAG, q_lora_rank=(None, 6, 9)),
    "youtu": _latent(q_lora_rank=(None, 6, 9)),
    "sarvam_mla": _latent(
        **_DEEPSEEK,
        q_lora_rank=(None, 6, 9),
        first_k_dense_replace=range(4),
        num_experts=range(5, 8),
        num_shared_experts=range(1, 4),
    ),
    "cohere2": _any_head_width(
        _null_heads(
            _decoder(
                attention_bias=FLAG,
                sliding_window=(3, 6),
                sliding_window_pattern=range(1, 4),
                lists={"layer_types": SLIDES},
            )
        )
    ),
    "cohere2_moe": _decoder(
        head_dim="head_dim",
        experts="num_experts",
        attention_bias=FLAG,
        sliding_window=(3, 6),
        sliding_window_pattern=range(1, 4),
        prefix_dense_sliding_window_pattern=range(1, 4),
        prefix_dense_intermediate_size=WIDTH,
        first_k_dense_replace=range(2),
        num_shared_experts=range(3),
        lists={"mlp_layer_types": SPARSE, "layer_types": SLIDES},
    ),
    "cohere_compass_text": _any_head_width(
        _decoder(
            attention_bias=FLAG,
            sliding_window=(3, 6),
            lists={"layer_types": SLIDES},
            fixed={
                "rope_parameters": {n: {"rope_type": "default", "rope_theta": 1e4} for n in SLIDES}
            },
        )
    ),
    "olmo3": _null_heads(
        _decoder(attention_bias=FLAG, sliding_window=(3, 6), lists={"layer_types": SLIDES})
    ),
    "olmoe": _null_heads(_decoder(experts="num_experts", attention_bias=FLAG)),
    "flex_olmo": _null_heads(_decoder(experts="num_experts", attention_bias=FLAG)),
    "jais2": _null_heads(_decoder(head_dim="head_dim", **BIASES)),
    "mellum": _decoder(
        head_dim="head_dim",
        experts="num_experts",
        moe_intermediate_size=WIDTH,
        attention_bias=FLAG,
        sliding_window=(3, 6),
        lists={"mlp_layer_types": SPARSE, "layer_types": SLIDES},
    ),
    "glm": _decoder(head_dim="head_dim", attention_bias=FLAG),
    "glm4": _decoder(head_dim="head_dim", attention_bias=FLAG),
    "glm4_moe": _decoder(
        head_dim="head_dim",
        **_DEEPSEEK,
        first_k_dense_replace=range(4),
        use_qk_norm=FLAG,
        attention_bias=FLAG,
    ),
    "sarvam_moe": _decoder(
        head_dim="head_dim",
        **_DEEPSEEK,
        first_k_dense_replace=range(4),
        num_experts=range(5, 8),
        num_shared_experts=range(1, 4),
        use_qk_norm=FLAG,
        use_qkv_bias=FLAG,
        attention_bias=FLAG,
    ),
    "solar_open": _decoder(head_dim="head_dim", **_DEEPSEEK, attention_bias=FLAG),
    "dots1": _null_heads(
        _decoder(
            head_dim="head_dim",
            **_DEEPSEEK | {"fixed": _DEEPSEEK["fixed"] | {"n_shared_experts": 2}},
            first_k_dense_replace=range(4),
            attention_bias=FLAG,
            sliding_window=(3, 6),
            max_window_layers=range(4),
            lists={"layer_types": SLIDES},
        )
    ),
    "exaone": _decoder(head_dim="head_dim", attention_bias=FLAG, mlp_bias=FLAG),
    "exaone4": _decoder(
        head_dim="head_dim",
        sliding_window=(3, 6),
        sliding_window_pattern=range(1, 4),
        lists={"layer_types": SLIDES},
    ),
    "exaone_moe": _decoder(
        head_dim="head_dim",
        experts="num_experts",
        fixed={"n_group": 1, "topk_group": 1},
        moe_intermediate_size=WIDTH,
        num_shared_experts=range(1, 3),
        first_k_dense_replace=range(4),
        sliding_window=(3, 6),
        sliding_window_pattern=range(1, 4),
        lists={"layer_types": SLIDES, "mlp_layer_types": SPARSE},
    ),
    "hunyuan_v1_dense": _null_heads(_decoder(head_dim="head_dim", attention_bias=FLAG)),
    "hunyuan_v1_moe": _listed_active(
        _decoder(head_dim="head_dim", experts="num_experts", active="moe_topk", attention_bias=FLAG)
    ),
    "hy_v3": _decoder(
        head_dim="head_dim",
        experts="num_experts",
        moe_intermediate_size=WIDTH,
        num_shared_experts=range(3),
        lists={"mlp_layer_types": SPARSE},
        **BIASES,
    ),
    "ernie4_5_moe": _decoder(
        experts="moe_num_experts",
        active="moe_k",
        moe_intermediate_size=WIDTH,
        moe_num_shared_experts=range(3),
        moe_layer_start_index=range(3),
        moe_layer_end_index=(-1, 0, 1, 2),
        moe_layer_interval=range(1, 3),
        use_bias=FLAG,
    ),
    "granitemoe": _null_heads(_decoder(experts="num_local_experts", attention_bias=FLAG)),
    "granitemoeshared": _null_heads(
        _decoder(
            experts="num_local_experts", attention_bias=FLAG, shared_intermediate_size=range(3)
        )
    ),
    "granitemoe_swa": _null_heads(
        _decoder(
            experts="num_local_experts",
            attention_bias=FLAG,
            shared_intermediate_size=range(3),
            sliding_window=(3, 6),
            lists={"layer_types": SLIDES},
        )
    ),
    "granite_swa": _decoder(sliding_window=(3, 6), lists={"layer_types": SLIDES}, **BIASES),
    "arcee": _null_heads(_decoder(head_dim="head_dim", **BIASES)),
    "apertus": _null_heads(_decoder(attention_bias=FLAG)),
    "apertus1p5_text": _null_heads(
        _decoder(attention_bias=FLAG, vocab_size=range(11, 90), output_vocab_size=(None, 5, 11))
    ),
    "bitnet": _null_heads(_decoder(attention_bias=FLAG)),
    "nanochat": _null_heads(_decoder(attention_bias=FLAG)),
    "hyperclovax": _null_heads(_decoder(head_dim="head_dim", use_post_norm=FLAG, **BIASES)),
    "diffllama": _null_heads(_even_heads(_decoder(attention_bias=FLAG))),
    "phimoe": _decoder(
        experts="num_local_experts",
        attention_bias=FLAG,
        lm_head_bias=FLAG,
        sliding_window=WINDOW,
    ),
    "minimax_m2": _decoder(head_dim="head_dim", experts="num_local_experts"),
    "aria_text": _null_heads(
        _decoder(
            head_dim="head_dim",
            experts="moe_num_experts",
            active="moe_topk",
            moe_num_shared_experts=range(1, 4),
            **BIASES,
        )
    ),
    "afmoe": _null_heads(
        _decoder(
            head_dim="head_dim",
            experts="num_experts",
            moe_intermediate_size=WIDTH,
            num_dense_layers=range(4),
            num_shared_experts=range(1, 3),
            global_attn_every_n_layers=range(1, 4),
            sliding_window=(3, 6),
            attention_bias=FLAG,
            lists={"layer_types": SLIDES},
        )
    ),
    "laguna": _heads_by_layer(
        _decoder(
            head_dim="head_dim",
            experts="num_experts",
            moe_intermediate_size=WIDTH,
            shared_expert_intermediate_size=WIDTH,
            gating=(True, "per-head", "per-element", False),
            sliding_window=(3, 6),
            attention_bias=FLAG,
            lists={"layer_types": SLIDES, "mlp_layer_types": SPARSE},
        )
    ),
    "mimo_v2_flash": _even_heads(
        _decoder(
            head_dim="head_dim",
            experts="n_routed_experts",
            fixed={"v_head_dim": 6},
            moe_intermediate_size=WIDTH,
            sliding_window=(3, 6),
            attention_bias=FLAG,
            lists={"layer_types": SLIDES, "mlp_layer_types": SPARSE},
        )
    ),
    "dbrx": _dbrx,
    "dory": _dory,
    "llama4_text": _decoder(
        head_dim="head_dim",
        experts="num_local_experts",
        intermediate_size_mlp=WIDTH,
        interleave_moe_layer_step=range(1, 4),
        moe_layers=([0], [1, 2], []),
        no_rope_layer_interval=range(1, 4),
        attention_chunk_size=(3, 6),
        attention_bias=FLAG,
        lists={"layer_types": ("chunked_attention", "full_attention"), "no_rope_layers": (0, 1)},
    ),
    "longcat_flash": _longcat_flash,
    "vaultgemma": _decoder(
        head_dim="head_dim",
        attention_bias=FLAG,
        sliding_window=(3, 6),
        lists={"layer_types": SLIDES},
    ),
    "gemma3n_text": _gemma3n,
    "gemma4_text": _gemma4,
    "jetmoe": _decoder(
        head_dim="kv_channels", experts="num_local_experts", fixed={"num_attention_heads": None}
    ),
    "doge": _null_heads(
        _decoder(
            head_dim="head_dim",
            experts="num_experts",
            is_moe=FLAG,
            sliding_window=WINDOW,
            **BIASES,
        )
    ),
    "modernbert-decoder": _decoder(
        grouped=False,
        fixed={"pad_token_id": 0},
        norm_bias=FLAG,
        decoder_bias=FLAG,
        classifier_bias=FLAG,
        local_attention=(6, 12),
        global_attn_every_n_layers=range(1, 4),
        lists={"layer_types": SLIDES},
        **BIASES,
    ),
    **dict.fromkeys(BART_DECODERS, _bart),
    "bigbird_pegasus": _bart,
    "marian": _marian,
    "trocr": _trocr,
    "whisper": _whisper,
    **{name: _bert() for name in BERT_DECODERS},
    "big_bird": _bert(use_bias=FLAG),
    "bert-generation": _bert(),
    "electra": _bert(embedding_size=(3, 8), summary_use_proj=FLAG, summary_proj_to_labels=FLAG),
    "ernie": _bert(use_task_id=FLAG, task_type_vocab_size=range(1, 5)),
    "rembert": _bert(
        input_embedding_size=WIDTH,
        output_embedding_size=WIDTH,
        fixed={"tie_word_embeddings": False, "pad_token_id": 0},
    ),
    "roc_bert": _bert(
        enable_pronunciation=FLAG,
        enable_shape=FLAG,
        concat_input=FLAG,
        pronunciation_vocab_size=range(2, 9),
        pronunciation_embed_dim=range(1, 9),
        shape_vocab_size=range(2, 9),
        shape_embed_dim=range(1, 9),
    ),
    "roformer": _bert(embedding_size=(None, 3, 8)),
    "xmod": _bert(
        languages=(["en_XX"], ["en_XX", "de_DE"]),
        adapter_layer_norm=FLAG,
        pre_norm=FLAG,
        adapter_reduction_factor=(1, 2),
    ),
    "beam": _decoder(
        head_dim="head_dim",
        experts="num_experts",
        fixed={"n_group": 1, "topk_group": 1},
        moe_intermediate_size=WIDTH,
        sliding_window=(3, 6),
        attention_bias=FLAG,
        lists={"layer_types": SLIDES, "mlp_layer_types": SPARSE},
    ),
    "flint": _decoder(
        head_dim="head_dim",
        experts="num_experts",
        moe_intermediate_size=WIDTH,
        shared_expert_intermediate_size=WIDTH,
        decoder_sparse_step=range(1, 3),
        mlp_only_layers=([], [0], [1, 2]),
        sliding_window=(3, 6),
        attention_bias=FLAG,
        lists={"layer_types": SLIDES},
    ),
    "kolibri1": _decoder(
        head_dim="head_dim",
        experts="num_local_experts",
        moe_intermediate_size=WIDTH,
        shared_expert_intermediate_size=WIDTH,
        sliding_window=(3, 6),
        lists={"layer_types": SLIDES},
    ),
    "minimax_m3_vl_text": _decoder(
        head_dim="head_dim",
        experts="num_local_experts",
        dense_intermediate_size=WIDTH,
        shared_intermediate_size=WIDTH,
        index_n_heads=range(1, 3),
        index_head_dim=range(64, 72, 2),
        lists={
            "layer_types": ("minimax_m3_sparse", "full_attention"),
            "mlp_layer_types": SPARSE,
        },
    ),
    "axk2": _latent(
        **_INDEXED | {"fixed": {"n_group": None, "topk_group": None}}, gated_norm_rank=range(1, 9)
    ),
    "gemma4_unified_text": _gemma4_unified,
    "deepseek_v4": _deepseek_v4,
    "hy_v4": _latent(
        **_INDEXED | {"lists": {"mlp_layer_types": SPARSE, "indexer_types": ("full", "full")}},
        hc_mult=range(2, 5),
    ),
    "moshi": _null_heads(
        _decoder(
            head_dim="head_dim",
            ffn_dim=range(2, 40, 2),
            sliding_window=(3, 6),
            fixed={"tie_word_embeddings": False},
        )
    ),
    "mllama": _inside(
        "text_config",
        _decoder(
            cross_attention_layers=([], [0], [1, 2]),
            fixed={"tie_word_embeddings": False, "pad_token_id": 0},
        ),
    ),
    "dots3_note_text": _dots3_note,
    "phi4_multimodal": _phi4_multimodal,
}
