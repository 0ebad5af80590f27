"""RWKV-4 as transformers stores it: time mixing instead of attention, channel mixing as the feed-forward.

Names, shapes and defaults: huggingface/transformers `models/rwkv`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    L,
    d,
    f,
    feed_forward_width,
    linear,
    norm,
)
from minilm.architectures.config_fields import field_name, optional_size, size
from minilm.architectures.decoder import Defaults, decoder
from minilm.architectures.moe import LayerGroup
from minilm.architectures.recurrent import decay, inner_width, within
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, ZERO

_DEFAULTS = Defaults(50277, 32, (4096, 1, None, None), context=1024)
_BLOCK = "rwkv.blocks.{i}"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of RwkvForCausalLM for a config.json."""
    d_model = size(config, "hidden_size", 4096)
    width = optional_size(config, "attention_hidden_size") or d_model
    hidden = optional_size(config, "intermediate_size") or 4 * d_model
    inner, wide = inner_width(width, d_model), feed_forward_width(hidden, d_model)
    time, channels = f"{_BLOCK}.attention", f"{_BLOCK}.feed_forward"
    inputs = components.MIXER_INPUT

    def mixes(prefix: str, component: str, *names: str) -> tuple[Tensor, ...]:
        """How much of the token before is mixed in."""
        shape = (ONE, ONE, d)
        return tuple(
            Tensor(f"{prefix}.time_mix_{name}", shape, component, Role.SCALED, L) for name in names
        )

    first = norm(f"{_BLOCK}.pre_ln", components.EMBEDDING_NORM, bias=True)
    context = field_name(config, "context_length", "max_position_embeddings")
    return decoder(
        config,
        _DEFAULTS,
        Heads({"d": d_model}, ZERO, ZERO),
        *within(LayerGroup(ONE, (0,)), *first),
        *norm(f"{_BLOCK}.ln1", components.MIXER_NORM, bias=True),
        *norm(f"{_BLOCK}.ln2", components.FEED_FORWARD_NORM, bias=True),
        decay(f"{time}.time_decay", inner),
        decay(f"{time}.time_first", inner),
        *mixes(time, components.MIXER_GATES, "key", "value", "receptance"),
        *linear(f"{time}.key", inner, d, inputs),
        *linear(f"{time}.value", inner, d, inputs),
        *linear(f"{time}.receptance", inner, d, components.MIXER_GATES),
        *linear(f"{time}.output", d, inner, components.MIXER_OUTPUT),
        *mixes(channels, components.FEED_FORWARD_GATE, "key", "receptance"),
        *linear(f"{channels}.key", wide, d, components.FEED_FORWARD_UP),
        *linear(f"{channels}.receptance", d, d, components.FEED_FORWARD_GATE),
        *linear(f"{channels}.value", d, wide, components.FEED_FORWARD_DOWN),
        symbols={
            **({"I": width} if width % d_model else {}),
            **({"f": hidden} if wide == f else {}),
        },
        attention=(),
        # The last input of both mixers, and numerator, denominator and maximum of the average.
        state=L * (2 * d + 3 * inner),
        table="rwkv.embeddings",
        final_norm="rwkv.ln_out",
        norm_bias=True,
        head="head",
        fields={"max_position_embeddings": context},
    )
