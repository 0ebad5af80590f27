"""Random small configs of the Llama-like families and of those with experts.

Every option that changes a tensor's name or shape is drawn, and so is its absence: its default in our
declaration must be the architecture's.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

Config = dict[str, Any]


def _maybe(random: Random, **fields: Any) -> Config:
    """Each field or its absence."""
    return {name: value for name, value in fields.items() if random.random() < 0.6}


def _flag(random: Random) -> bool:
    return random.random() < 0.5


def _decoder(random: Random, *, explicit_heads: bool = False) -> Config:
    """The sizes that all of these families have; ``explicit_heads`` where k need not be d / h."""
    kv_heads = random.randint(1, 3)
    heads = kv_heads * random.randint(1, 3)
    head_dim = 2 * random.randint(1, 4)
    width = heads * head_dim
    config: Config = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(1, 3),
        "num_key_value_heads": kv_heads,
    }
    if explicit_heads:
        config["head_dim"] = 2 * random.randint(1, 9)
    return config | _maybe(
        random,
        vocab_size=random.randint(2, 90),
        intermediate_size=random.randint(1, 90),
        tie_word_embeddings=_flag(random),
        max_position_embeddings=random.randint(8, 64),
    )


def _layer_types(random: Random, config: Config) -> Config:
    names = ("sliding_attention", "full_attention")
    return {"layer_types": [random.choice(names) for _ in range(config["num_hidden_layers"])]}


def _llama(random: Random) -> Config:
    config = _decoder(random, explicit_heads=_flag(random))
    config |= _maybe(random, attention_bias=_flag(random), mlp_bias=_flag(random))
    return _null_heads(random, config)


def _granite(random: Random) -> Config:
    config = _decoder(random)
    config |= _maybe(random, attention_bias=_flag(random), mlp_bias=_flag(random))
    return _null_heads(random, config)


def _null_heads(random: Random, config: Config) -> Config:
    """In some draws as many key/value heads as heads, said by null."""
    return config | {"num_key_value_heads": None} if random.random() < 0.3 else config


def _mistral(random: Random) -> Config:
    config = _decoder(random, explicit_heads=_flag(random))
    return config | _maybe(random, sliding_window=random.choice([None, 6]))


def _experts(random: Random, name: str) -> Config:
    total = random.randint(1, 5)
    return {name: total, "num_experts_per_tok": random.randint(1, total)}


def _mixtral(random: Random) -> Config:
    return _mistral(random) | _experts(random, "num_local_experts")


def _windows(random: Random, config: Config) -> Config:
    drawn = _maybe(
        random, sliding_window=random.randint(3, 9), max_window_layers=random.randint(0, 3)
    )
    if _flag(random):
        return drawn | {"use_sliding_window": False}
    drawn |= _layer_types(random, config) if _flag(random) else {}
    return drawn | {"use_sliding_window": True}


def _qwen2(random: Random) -> Config:
    config = _decoder(random)
    return _null_heads(random, config | _windows(random, config))


def _qwen3(random: Random) -> Config:
    config = _decoder(random, explicit_heads=_flag(random))
    config |= _windows(random, config) | _maybe(random, attention_bias=_flag(random))
    return _null_heads(random, config)


def _sparse(random: Random, config: Config) -> Config:
    return _maybe(
        random,
        moe_intermediate_size=random.randint(1, 50),
        decoder_sparse_step=random.randint(1, 3),
        mlp_only_layers=[i for i in range(config["num_hidden_layers"]) if _flag(random)],
    )


def _qwen2_moe(random: Random) -> Config:
    config = _decoder(random)
    config |= _windows(random, config) | _sparse(random, config)
    config |= _maybe(
        random, shared_expert_intermediate_size=random.randint(1, 50), qkv_bias=_flag(random)
    )
    return config | _experts(random, "num_experts")


def _qwen3_moe(random: Random) -> Config:
    config = _decoder(random, explicit_heads=_flag(random))
    config |= _sparse(random, config)
    config |= _maybe(
        random,
        attention_bias=_flag(random),
        use_sliding_window=_flag(random),
        sliding_window=random.randint(3, 9),
    )
    return config | _experts(random, "num_experts")


def _gemma(random: Random) -> Config:
    config = _decoder(random, explicit_heads=_flag(random))
    return config | _maybe(random, attention_bias=_flag(random))


def _gemma2(random: Random) -> Config:
    config = _gemma(random) | _maybe(random, sliding_window=random.randint(3, 9))
    return config | (_layer_types(random, config) if _flag(random) else {})


def _gemma3(random: Random) -> Config:
    return _gemma2(random) | _maybe(random, sliding_window_pattern=random.randint(1, 3))


def _phi3(random: Random) -> Config:
    config = _decoder(random) | {"pad_token_id": None}
    config |= _maybe(random, sliding_window=random.choice([None, 6]))
    return _null_heads(random, config)


def _olmo(random: Random) -> Config:
    config = _decoder(random) | _maybe(random, attention_bias=_flag(random))
    config |= {"pad_token_id": None, "eos_token_id": None}
    return _null_heads(random, config)


def _smollm3(random: Random) -> Config:
    config = _decoder(random) | {"pad_token_id": None}
    config |= _maybe(
        random,
        attention_bias=_flag(random),
        mlp_bias=_flag(random),
        use_sliding_window=_flag(random),
        sliding_window=random.randint(3, 9),
        no_rope_layer_interval=random.randint(1, 3),
    )
    if random.random() < 0.3:
        config["no_rope_layers"] = [
            random.randint(0, 1) for _ in range(config["num_hidden_layers"])
        ]
    return _null_heads(random, config)


def _cohere(random: Random) -> Config:
    config = _decoder(random)
    config |= _maybe(random, attention_bias=_flag(random), use_qk_norm=_flag(random))
    return _null_heads(random, config)


def _nemotron(random: Random) -> Config:
    config = _decoder(random, explicit_heads=_flag(random))
    return config | _maybe(random, attention_bias=_flag(random), mlp_bias=_flag(random))


def _deepseek(random: Random) -> Config:
    config = _decoder(random)
    config["num_key_value_heads"] = config["num_attention_heads"]
    config |= _experts(random, "n_routed_experts")
    return config | _maybe(
        random,
        q_lora_rank=random.choice([None, random.randint(1, 30)]),
        kv_lora_rank=2 * random.randint(1, 15),
        qk_rope_head_dim=2 * random.randint(1, 5),
        qk_nope_head_dim=2 * random.randint(1, 5),
        v_head_dim=random.randint(1, 9),
        moe_intermediate_size=random.randint(1, 50),
        n_shared_experts=random.randint(1, 3),
        first_k_dense_replace=random.randint(0, 3),
        attention_bias=_flag(random),
    )


def _deepseek_v2(random: Random) -> Config:
    return _deepseek(random) | _maybe(random, mlp_bias=_flag(random))


def _deepseek_v3(random: Random) -> Config:
    return _deepseek(random) | _maybe(random, num_nextn_predict_layers=random.randint(0, 2))


def _gpt_oss(random: Random) -> Config:
    config = _decoder(random, explicit_heads=_flag(random))
    config |= _experts(random, "num_local_experts")
    config |= _maybe(random, attention_bias=_flag(random), sliding_window=random.randint(3, 9))
    return config | (_layer_types(random, config) if _flag(random) else {})


def _hrm_text(random: Random) -> Config:
    config = _decoder(random, explicit_heads=True)
    del config["num_key_value_heads"]
    return config | _maybe(
        random,
        attention_bias=_flag(random),
        mlp_bias=_flag(random),
        H_cycles=random.randint(1, 3),
        L_cycles=random.randint(1, 3),
    )


def _sliding_heads(random: Random) -> Config:
    """Both Inklings' sizes that do not follow from Llama's."""
    groups = random.randint(1, 3)
    return {
        "swa_num_key_value_heads": groups,
        "swa_num_attention_heads": groups * random.randint(1, 3),
        "swa_head_dim": 2 * random.randint(1, 4),
    } | _maybe(
        random,
        moe_intermediate_size=random.randint(1, 50),
        d_rel=random.randint(1, 9),
        rel_extent=random.randint(3, 9),
        **{random.choice(("conv_kernel_size", "sconv_kernel_size")): random.randint(2, 5)},
        **{random.choice(("sliding_window_size", "sliding_window")): random.randint(3, 9)},
    )


def _hybrids(random: Random, number: int) -> list[str]:
    return [random.choice(("hybrid", "hybrid_sliding")) for _ in range(number)]


def _inkling(random: Random) -> Config:
    config = _decoder(random, explicit_heads=True) | _experts(random, "n_routed_experts")
    config |= _sliding_heads(random)
    layers = range(config["num_hidden_layers"])
    return config | _maybe(
        random,
        layer_types=_hybrids(random, len(layers)),
        mlp_layer_types=[random.choice(("dense", "sparse")) for _ in layers],
        local_layer_ids=[i for i in layers if _flag(random)],
        dense_mlp_idx=random.randint(0, 2),
        dense_intermediate_size=random.randint(1, 50),
        n_shared_experts=random.randint(1, 3),
    )


def _inkling2(random: Random) -> Config:
    config = _decoder(random, explicit_heads=True) | _experts(random, "n_routed_experts")
    config.pop("intermediate_size", None)  # another name of the experts' width
    number = config["num_hidden_layers"]
    config |= _sliding_heads(random) | _maybe(random, layer_types=_hybrids(random, number))
    config |= _maybe(random, n_layers_per_attn_res_block=random.randint(1, 3))
    # By default a little less than the default of the vocabulary.
    return config | (
        {"unpadded_vocab_size": config["vocab_size"]} if "vocab_size" in config else {}
    )


def _inkling2_loop(random: Random) -> Config:
    config = _inkling2(random)
    block, start = random.randint(1, 2), random.randint(1, 2)
    end = start + random.randint(1, 2)
    number = block * end + random.randint(0, 2)
    config |= {"num_hidden_layers": number, "n_layers_per_attn_res_block": block}
    config.pop("layer_types", None)
    config |= _maybe(random, layer_types=_hybrids(random, number))
    if "vocab_size" in config:
        config["unpadded_vocab_size"] = random.randint(1, config["vocab_size"])
    sizes = {"num_passes": random.randint(1, 4), "gate_rank": random.randint(1, 9)}
    if _flag(random):
        ends = {"core_start": block * start, "core_end": block * end}
        return config | {"loop_config": ends | _maybe(random, **sizes)}
    ends = {"loop_layer_index_start": block * start, "loop_layer_index_end": block * end}
    return config | ends | _maybe(random, **{f"loop_{name}": n for name, n in sizes.items()})


DRAWS: dict[str, Callable[[Random], Config]] = {
    "llama": _llama,
    "granite": _granite,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen2_moe": _qwen2_moe,
    "qwen3_moe": _qwen3_moe,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "phi3": _phi3,
    "olmo": _olmo,
    "olmo2": _olmo,
    "smollm3": _smollm3,
    "cohere": _cohere,
    "nemotron": _nemotron,
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
    "gpt_oss": _gpt_oss,
    "hrm_text": _hrm_text,
    "inkling2_loop_text": _inkling2_loop,
    "inkling2_text": _inkling2,
    "inkling_text": _inkling,
}
