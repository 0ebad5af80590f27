"""Random small configs of the GPT-like families: every option that changes a tensor's name or shape.

A field that is left out is drawn too: its default in our declaration must be the architecture's.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

Config = dict[str, Any]


def _shape(random: Random, width: str, heads: str, layers: str) -> Config:
    """Sizes that fit each other under the family's field names; heads of an even width, for RoPE."""
    num_heads = random.choice([1, 2, 3, 4, 6])
    return {
        width: num_heads * random.choice([2, 4, 8]),
        heads: num_heads,
        layers: random.randint(1, 4),
    }


def _maybe(random: Random, **fields: Callable[[], Any]) -> Config:
    """Each field or its absence."""
    return {name: draw() for name, draw in fields.items() if random.random() < 0.7}


def _some(random: Random, low: int = 1, high: int = 80) -> Callable[[], int]:
    return lambda: random.randint(low, high)


def _flag(random: Random) -> Callable[[], bool]:
    return lambda: random.random() < 0.5


def _fields(random: Random, **names: str) -> list[str]:
    """Field names in order; each by its second spelling in half of the draws."""
    return [random.choice(spellings.split("|")) for spellings in names.values()]


def _gpt2(random: Random) -> Config:
    names = _fields(
        random,
        d="n_embd|hidden_size",
        h="n_head|num_attention_heads",
        L="n_layer|num_hidden_layers",
    )
    positions = random.choice(["n_positions", "max_position_embeddings"])
    return {
        **_shape(random, *names),
        **_maybe(
            random,
            vocab_size=_some(random),
            n_inner=lambda: random.choice([None, random.randint(1, 80)]),
            tie_word_embeddings=_flag(random),
            scale_attn_weights=_flag(random),
            scale_attn_by_inverse_layer_idx=_flag(random),
            **{positions: _some(random)},
        ),
    }


def _openai_gpt(random: Random) -> Config:
    config = _gpt2(random)
    config.pop("n_inner", None)
    return config


def _gpt_neo(random: Random) -> Config:
    names = _fields(
        random,
        d="hidden_size",
        h="num_heads|num_attention_heads",
        L="num_layers|num_hidden_layers",
    )
    shape = _shape(random, *names)
    kinds = [random.choice(["global", "local"]) for _ in range(random.randint(1, 3))]
    times = random.randint(1, 2)
    shape[names[2]] = len(kinds) * times
    return {
        **shape,
        "attention_types": [[kinds, times]],
        **_maybe(
            random,
            vocab_size=_some(random),
            max_position_embeddings=_some(random, 16, 64),
            intermediate_size=lambda: random.choice([None, random.randint(1, 80)]),
            window_size=_some(random, 1, 16),
            tie_word_embeddings=_flag(random),
        ),
    }


def _gptj(random: Random) -> Config:
    return {
        **_openai_gpt(random),
        **_maybe(random, n_inner=lambda: random.choice([None, random.randint(1, 80)])),
        "rotary_dim": 2,
    }


def _gpt_neox(random: Random) -> Config:
    return {
        **_shape(random, "hidden_size", "num_attention_heads", "num_hidden_layers"),
        **_maybe(
            random,
            vocab_size=_some(random),
            intermediate_size=_some(random),
            attention_bias=_flag(random),
            tie_word_embeddings=_flag(random),
            use_parallel_residual=_flag(random),
            rotary_pct=lambda: random.choice([0.25, 0.5, 1.0]),
        ),
    }


def _opt(random: Random) -> Config:
    return {
        **_shape(random, "hidden_size", "num_attention_heads", "num_hidden_layers"),
        **_maybe(
            random,
            vocab_size=_some(random, 2),
            max_position_embeddings=_some(random),
            ffn_dim=_some(random),
            word_embed_proj_dim=lambda: random.choice([None, 4, random.randint(1, 80)]),
            do_layer_norm_before=_flag(random),
            _remove_final_layer_norm=_flag(random),
            enable_bias=_flag(random),
            layer_norm_elementwise_affine=_flag(random),
            tie_word_embeddings=_flag(random),
        ),
    }


def _bloom(random: Random) -> Config:
    names = _fields(
        random,
        d="hidden_size|n_embed",
        h="n_head|num_attention_heads",
        L="n_layer|num_hidden_layers",
    )
    return {
        **_shape(random, *names),
        **_maybe(
            random,
            vocab_size=_some(random),
            n_inner=_some(random),
            seq_length=_some(random),
            tie_word_embeddings=_flag(random),
        ),
    }


def _falcon(random: Random) -> Config:
    shape = _shape(random, "hidden_size", "num_attention_heads", "num_hidden_layers")
    heads = shape["num_attention_heads"]
    groups = [g for g in range(1, heads + 1) if heads % g == 0]
    if random.random() < 0.3:
        shape["n_embed"] = shape.pop("hidden_size")
    return {
        **shape,
        **_maybe(
            random,
            vocab_size=_some(random),
            num_kv_heads=lambda: random.choice([None, *groups]),
            ffn_hidden_size=lambda: random.choice([None, random.randint(1, 80)]),
            new_decoder_architecture=_flag(random),
            multi_query=_flag(random),
            parallel_attn=_flag(random),
            num_ln_in_parallel_attn=lambda: random.choice([None, 1, 2]),
            bias=_flag(random),
            alibi=_flag(random),
            tie_word_embeddings=_flag(random),
        ),
    }


def _mpt(random: Random) -> Config:
    names = _fields(
        random,
        d="d_model|hidden_size",
        h="n_heads|num_attention_heads",
        L="n_layers|num_hidden_layers",
    )
    return {
        **_shape(random, *names),
        **_maybe(
            random,
            vocab_size=_some(random),
            max_seq_len=_some(random),
            expansion_ratio=_some(random, 1, 8),
            no_bias=_flag(random),
            learned_pos_emb=_flag(random),
            attn_config=lambda: {"alibi": random.random() < 0.5, "qk_ln": random.random() < 0.5},
            tie_word_embeddings=_flag(random),
        ),
    }


def _grouped(random: Random) -> Config:
    """A shape with grouped heads, of families that write every size by its long name."""
    shape = _shape(random, "hidden_size", "num_attention_heads", "num_hidden_layers")
    heads = shape["num_attention_heads"]
    groups = [g for g in range(1, heads + 1) if heads % g == 0]
    return {
        **shape,
        "num_key_value_heads": random.choice(groups),
        **_maybe(
            random,
            vocab_size=_some(random),
            intermediate_size=_some(random),
            max_position_embeddings=_some(random),
            tie_word_embeddings=_flag(random),
        ),
    }


def _phi(random: Random) -> Config:
    config = _grouped(random)
    if random.random() < 0.3:
        config["num_key_value_heads"] = None
    if random.random() < 0.3:
        return {**config, "head_dim": random.choice([2, 4, 8])}
    return {**config, **_maybe(random, qk_layernorm=_flag(random))}


def _stablelm(random: Random) -> Config:
    return {
        **_grouped(random),
        **_maybe(
            random,
            qk_layernorm=_flag(random),
            use_qkv_bias=_flag(random),
            use_parallel_residual=_flag(random),
        ),
    }


def _starcoder2(random: Random) -> Config:
    return {
        **_grouped(random),
        **_maybe(
            random,
            use_bias=_flag(random),
            sliding_window=lambda: random.choice([None, 4]),
            head_dim=lambda: random.choice([2, 4, 8]),
        ),
    }


def _gpt_bigcode(random: Random) -> Config:
    config = {name: value for name, value in _gpt2(random).items() if "scale" not in name}
    return config | _maybe(random, multi_query=_flag(random))


def _plain(random: Random) -> Config:
    """Llama's names, without grouped heads."""
    config = {name: value for name, value in _grouped(random).items() if "key_value" not in name}
    return config | {"pad_token_id": None}


def _biogpt(random: Random) -> Config:
    return _plain(random)


def _codegen(random: Random) -> Config:
    names = _fields(
        random,
        d="n_embd|hidden_size",
        h="n_head|num_attention_heads",
        L="n_layer|num_hidden_layers",
    )
    config = _shape(random, *names)
    config[names[1]] *= 4  # its matrices are split into as many parts
    config[names[0]] *= 4
    positions = random.choice(["n_positions", "max_position_embeddings"])
    return config | _maybe(
        random,
        vocab_size=_some(random),
        n_inner=lambda: random.choice([None, random.randint(1, 80)]),
        tie_word_embeddings=_flag(random),
        **{positions: _some(random)},
    )


def _ctrl(random: Random) -> Config:
    names = _fields(
        random,
        d="n_embd|hidden_size",
        h="n_head|num_attention_heads",
        L="n_layer|num_hidden_layers",
    )
    drawn = _maybe(
        random,
        vocab_size=_some(random),
        dff=_some(random),
        n_positions=_some(random),
        tie_word_embeddings=_flag(random),
    )
    return _shape(random, *names) | drawn


def _gpt_neox_japanese(random: Random) -> Config:
    config = _plain(random)
    config.pop("intermediate_size", None)
    return config | _maybe(random, intermediate_multiple_size=_some(random, 1, 6))


def _persimmon(random: Random) -> Config:
    return _plain(random) | _maybe(random, qk_layernorm=_flag(random))


def _fuyu(random: Random) -> Config:
    return {"text_config": _persimmon(random) | {"model_type": "persimmon"}} | _maybe(
        random,
        num_channels=_some(random, 1, 4),
        patch_size=_some(random, 1, 9),
        tie_word_embeddings=_flag(random),
    )


def _xglm(random: Random) -> Config:
    shape = _shape(random, "d_model", "attention_heads", "num_layers")
    shape["d_model"] *= 2  # half of it, less one, divides
    return shape | _maybe(
        random,
        vocab_size=_some(random, 2),
        ffn_dim=_some(random),
        max_position_embeddings=_some(random),
        tie_word_embeddings=_flag(random),
    )


def _cpmant(random: Random) -> Config:
    return _shape(random, "hidden_size", "num_attention_heads", "num_hidden_layers") | _maybe(
        random,
        vocab_size=_some(random),
        dim_head=_some(random, 1, 9),
        dim_ff=_some(random),
        position_bias_num_buckets=_some(random),
        prompt_types=_some(random, 1, 9),
        prompt_length=_some(random, 1, 9),
        segment_types=_some(random, 1, 9),
    )


def _prophetnet(random: Random) -> Config:
    shape = _shape(random, "hidden_size", "num_decoder_attention_heads", "num_decoder_layers")
    return shape | _maybe(
        random,
        vocab_size=_some(random, 2),
        decoder_ffn_dim=_some(random),
        max_position_embeddings=_some(random),
        ngram=_some(random, 1, 4),
        num_buckets=_some(random, 1, 9),
        add_cross_attention=_flag(random),
        tie_word_embeddings=_flag(random),
    )


def _xlm(random: Random) -> Config:
    names = _fields(
        random,
        d="emb_dim|hidden_size",
        h="n_heads|num_attention_heads",
        L="n_layers|num_hidden_layers",
    )
    return _shape(random, *names) | _maybe(
        random,
        vocab_size=_some(random, 3),
        max_position_embeddings=_some(random),
        n_langs=_some(random, 1, 3),
        use_lang_emb=_flag(random),
        tie_word_embeddings=_flag(random),
    )


def _xlnet(random: Random) -> Config:
    names = _fields(
        random,
        d="d_model",  # its head width is checked by these names
        h="n_head",
        L="n_layer|num_hidden_layers",
    )
    return _shape(random, *names) | _maybe(
        random,
        vocab_size=_some(random, 2),
        d_inner=_some(random),
        tie_word_embeddings=_flag(random),
    )


def _git(random: Random) -> Config:
    heads = random.randint(1, 3)
    vision = {
        "hidden_size": heads * 2 * random.randint(1, 4),
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(1, 3),
        "intermediate_size": random.randint(1, 20),
        "image_size": random.randint(14, 30),
        "patch_size": random.randint(4, 7),
        "num_channels": random.randint(1, 3),
    }
    drawn = _maybe(
        random,
        num_image_with_embedding=lambda: random.choice([None, 2]),
        vision_config=lambda: vision,
    )
    return _plain(random) | {"pad_token_id": 0} | drawn


DRAWS: dict[str, Callable[[Random], Config]] = {
    "bloom": _bloom,
    "falcon": _falcon,
    "gpt2": _gpt2,
    "gpt_bigcode": _gpt_bigcode,
    "gpt_neo": _gpt_neo,
    "gpt_neox": _gpt_neox,
    "gptj": _gptj,
    "mpt": _mpt,
    "openai-gpt": _openai_gpt,
    "opt": _opt,
    "phi": _phi,
    "stablelm": _stablelm,
    "starcoder2": _starcoder2,
    "biogpt": _biogpt,
    "codegen": _codegen,
    "ctrl": _ctrl,
    "gpt_neox_japanese": _gpt_neox_japanese,
    "persimmon": _persimmon,
    "fuyu": _fuyu,
    "xglm": _xglm,
    "cpmant": _cpmant,
    "prophetnet": _prophetnet,
    "xlm": _xlm,
    "xlnet": _xlnet,
    "git": _git,
}
