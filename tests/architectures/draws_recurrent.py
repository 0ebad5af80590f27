"""Random small configs of the types with recurrent layers, alone or beside attention."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from tests.architectures.draws_decoders import FLAG, WIDTH, Config, Draw, _decoder

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
}
