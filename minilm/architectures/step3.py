"""Step-3's language model: queries go through a shared latent, one key and value for all heads, experts.

Names and shapes: stepfun-ai/step3 `modeling_step3.py`, as vllm-project/vllm `models/step3_text.py` loads it;
defaults, `configs/step3_vl.py` there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import E, Heads, d, h, k, linear, m, norm, s
from minilm.architectures.config_fields import layers, size
from minilm.architectures.decoder import ATTENTION, BLOCK, MLP, Defaults, decoder, pre_norms
from minilm.architectures.moe import (
    LayerGroup,
    dense_feed_forward,
    read_experts,
    router,
    shared_expert,
    split_layers,
)
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import symbol

q = symbol("q")

_DEFAULTS = Defaults(128815, 61, (7168, 64, 1, 256), 18432, 65536, tied=True, experts=(48, 3, 5120))


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Step3TextForCausalLM for a config.json."""
    num_layers = layers(config, "num_hidden_layers", _DEFAULTS.layers)
    width, num_heads, _, head_dim = _DEFAULTS.heads
    symbols = {
        "d": size(config, "hidden_size", width),
        "h": size(config, "num_attention_heads", num_heads),
        "k": size(config, "head_dim", head_dim),
        "q": size(config, "share_q_dim", 2048),
    }
    split = split_layers(num_layers, has_experts(config, lambda i: 4 <= i < 60))
    symbols |= split.symbols
    if split.experts:
        symbols["s"] = size(config, "share_expert_dim", 5120)
        symbols |= read_experts(
            config,
            layers=split.expert_layers,
            total="moe_num_experts",
            active="moe_top_k",
            defaults=_DEFAULTS.experts,
        )
    return decoder(
        config,
        _DEFAULTS,
        Heads(symbols, h * k, k),
        *pre_norms(),
        *linear(f"{ATTENTION}.q_proj", q, d, components.ATTENTION_QUERY_LATENT),
        *norm(f"{ATTENTION}.inter_norm", components.ATTENTION_LATENT_NORM, width=q),
        *linear(f"{ATTENTION}.wq", h * k, q, components.ATTENTION_QUERY),
        *linear(f"{ATTENTION}.k_proj", k, d, components.ATTENTION_KEY),
        *linear(f"{ATTENTION}.v_proj", k, d, components.ATTENTION_VALUE),
        *linear(f"{ATTENTION}.o_proj", d, h * k, components.ATTENTION_OUTPUT),
        *dense_feed_forward(MLP, split.dense),
        *router(f"{BLOCK}.moe.gate", split.experts),
        *experts_in_one(split.experts),
        *shared_expert(f"{BLOCK}.share_expert", split.experts, width=s),
        fields={"max_position_embeddings": "max_position_embedding"},
    )


def has_experts(
    config: Mapping[str, Any], otherwise: Callable[[int], bool]
) -> Callable[[int], bool]:
    """Whether layer i has them: `moe_layers_enum` lists those, in a text or an array."""
    name = "moe_layers_enum"
    listed = config.get(name)
    if listed is None:
        return otherwise
    try:
        numbers = (
            {int(number) for number in listed.split(",")} if isinstance(listed, str) else {*listed}
        )
    except (TypeError, ValueError):
        numbers = {None}
    if any(type(number) is not int for number in numbers):
        raise ConfigError(f"config.json: {name}", shortened(listed), "numbers of layers")
    return numbers.__contains__


def experts_in_one(group: LayerGroup | None) -> tuple[Tensor, ...]:
    """All experts' gates in one tensor, and so on."""
    if group is None:
        return ()
    parts = {
        "gate_proj": ((E, m, d), components.EXPERTS_GATE),
        "up_proj": ((E, m, d), components.EXPERTS_UP),
        "down_proj": ((E, d, m), components.EXPERTS_DOWN),
    }
    return tuple(
        Tensor(
            f"{BLOCK}.moe.{name}.weight",
            shape,
            part,
            Role.MULTIPLIED,
            group.repeat,
            group.layers,
            routed=True,
        )
        for name, (shape, part) in parts.items()
    )
