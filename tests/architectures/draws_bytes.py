"""Random small configs of BLT and Reformer, and the classes of each."""

from __future__ import annotations

from random import Random

from tests.architectures.draws import _flag, _maybe
from tests.architectures.draws_classes import Config, Draw, labels


def _stack(random: Random, **more: object) -> Config:
    groups = random.randint(1, 2)
    heads = groups * random.randint(1, 2)
    return {
        "hidden_size": heads * 2 * random.randint(1, 4),
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(1, 3),
        **_maybe(
            random, num_key_value_heads=groups, intermediate_size=random.randint(1, 60), **more
        ),
    }


def _blt(random: Random) -> Config:
    local = {"cross_attn_all_layers": _flag(random), "cross_attn_k": random.randint(1, 3)}
    encoder = _stack(random, vocab_size=random.randint(3, 90), **local)
    decoder = _stack(random, hidden_size_global=7, **local)
    config: Config = {"vocab_size": random.randint(3, 90)}
    if random.random() < 0.4:
        same = {name: encoder[name] for name in ("hidden_size", "num_attention_heads")}
        decoder |= same | {"num_key_value_heads": 1}
        encoder["vocab_size"] = config["vocab_size"]
        config["tie_word_embeddings"] = True
    config |= {"encoder_config": encoder, "decoder_config": decoder}
    config |= {"global_config": _stack(random), "patcher_config": _stack(random)}
    return config | _maybe(
        random,
        patch_in_forward=_flag(random),
        cross_attn_k=random.randint(1, 3),
        encoder_hash_byte_group_size=[3, 4],
        encoder_hash_byte_group_vocab=11,
        encoder_hash_byte_group_nb_functions=2,
    )


def _reformer(random: Random) -> Config:
    kinds = random.choice((["lsh"], ["local"], ["local", "lsh"]))
    number = len(kinds) + random.randint(0, 2)
    widths = [2 * random.randint(1, 4), 6]
    config: Config = {"is_decoder": True, "hidden_size": sum(widths), "axial_pos_embds_dim": widths}
    config["attn_layers"] = [*kinds, *(random.choice(kinds) for _ in range(number - len(kinds)))]
    return config | _maybe(
        random,
        axial_pos_shape=[3, 4],
        axial_pos_embds=_flag(random),
        vocab_size=random.randint(3, 90),
        num_attention_heads=random.randint(1, 3),
        attention_head_size=random.randint(1, 9),
        feed_forward_size=random.randint(1, 60),
        max_position_embeddings=random.randint(8, 64),
        tie_word_embeddings=_flag(random),
        **labels(random),
    )


DRAWS: dict[str, tuple[tuple[str, ...], Draw]] = {
    "blt": (("BltForCausalLM",), _blt),
    "reformer": (
        tuple(
            f"Reformer{each}"
            for each in (
                *("ModelWithLMHead", "Model"),
                *("ForSequenceClassification", "ForQuestionAnswering"),
            )
        ),
        _reformer,
    ),
}
