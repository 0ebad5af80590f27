"""Zamba2 as transformers stores it: Mamba-2 in every layer, in some after a block that those layers share.

A shared block sees the stream beside the embeddings, and has adapters of its own for each layer that it runs
in; it is stored in the first of them. Names, shapes and defaults: huggingface/transformers `models/zamba2`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import Heads, d, f, g, h, k, linear, norm
from minilm.architectures.config_fields import (
    field_name,
    flag,
    layers,
    optional_size,
    require,
    size,
)
from minilm.architectures.decoder import BLOCK, Defaults, decoder
from minilm.architectures.moe import LayerGroup
from minilm.architectures.recurrent import (
    RANK,
    RECURRENT,
    Mixer,
    kinds_of_layers,
    layers_of,
    mamba2,
    read_mamba2,
    within,
)
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial

_DEFAULTS = Defaults(32000, 54, (2560, 32, None, None), context=4096, tied=True)
HYBRID = "hybrid"
_KINDS = [
    HYBRID if i in (6, 12, 18, 24, 30, 36, 42, 47, 51) else RECURRENT
    for i in range(_DEFAULTS.layers)
]
# Each of them ties the adapters of all: a list from a file must not make us name millions.
_MOST_SHARING = 128
_SHARED = f"{BLOCK}.shared_transformer"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Zamba2ForCausalLM for a config.json."""
    require(config, "tie_word_embeddings", True)  # else transformers ties no block either
    num_layers = layers(config, "num_hidden_layers", _DEFAULTS.layers)
    name = "layers_block_type"
    listed = {name: _KINDS if config.get(name) is None else config[name]}
    kinds = kinds_of_layers(
        listed, num_layers, lambda i: RECURRENT, name=name, names=(RECURRENT, HYBRID)
    )
    hybrid = [i for i, kind in enumerate(kinds) if kind == HYBRID]
    most_sharing(hybrid)
    blocks = min(size(config, "num_mem_blocks", 1), len(hybrid))
    heads = wide_heads(config, defaults=(2560, 32, None))
    wide = optional_size(config, "intermediate_size") or 4 * heads.symbols["d"]
    shared = [_shared_block(config, heads, hybrid, block, blocks) for block in range(blocks)]
    plain, after = (_mamba(config, heads.symbols["d"], prefix) for prefix in ("", ".mamba_decoder"))
    rank = size(config, "adapter_rank", 128)
    result = shared_decoder(
        config, _DEFAULTS, heads, kinds, (plain, after), shared, {"f": wide, "i": rank}
    )
    context = 16384 if flag(config, "use_long_context", False) else result.context_length
    return replace(result, context_length=context)


def shared_decoder(
    config: Mapping[str, Any],
    defaults: Defaults,
    heads: Heads,
    kinds: list[str],
    mixers: tuple[Mixer, Mixer],
    shared: Sequence[tuple[Tensor, ...]],
    symbols: Mapping[str, int],
) -> Layout:
    """A mixer in every layer; the hybrid ones take turns with the ``shared`` blocks before.

    ``mixers`` are those of the two kinds of layers, ``symbols`` the letters of the blocks.
    """
    plain, after = mixers
    hybrid, blocks = [i for i, kind in enumerate(kinds) if kind == HYBRID], len(shared)
    tied = [
        (tensor.name.replace("{i}", str(layer)), tensor.name.replace("{i}", str(hybrid[block])))
        for block, tensors in enumerate(shared)
        for layer in hybrid[block + blocks :: blocks]
        for tensor in tensors
    ]
    result = decoder(
        config,
        defaults,
        heads,
        *within(layers_of(kinds, RECURRENT), *plain.tensors),
        *within(
            layers_of(kinds, HYBRID),
            *linear(f"{BLOCK}.linear", d, d, components.ATTENTION_OUTPUT),
            *after.tensors,
        ),
        *(tensor for tensors in shared for tensor in tensors),
        symbols={**plain.symbols, **(symbols if hybrid else {})},
        attention=(heads.attention(layers=as_polynomial(len(hybrid))),) if hybrid else (),
        state=len(kinds) * plain.state,
        final_norm="model.final_layernorm",
    )
    return replace(result, ties=(*result.ties, *tied))


def most_sharing(hybrid: list[int]) -> None:
    """Raises ConfigError where more layers share a block than names are made for."""
    if len(hybrid) > _MOST_SHARING:
        got, expected = f"{len(hybrid)} hybrid layers", f"at most {_MOST_SHARING}"
        raise ConfigError("config.json: layers_block_type", got, expected)


def wide_heads(config: Mapping[str, Any], *, defaults: tuple[int, int, int | None]) -> Heads:
    """They see the stream beside the embeddings, and are as wide together unless their width is given.

    ``defaults`` are of the model's width, the heads and those of keys; None: as many as heads.
    """
    d_model = size(config, "hidden_size", defaults[0])
    num_heads = size(config, "num_attention_heads", defaults[1])
    own = optional_size(config, "num_key_value_heads")
    groups = own or (defaults[2] if "num_key_value_heads" not in config else None) or num_heads
    require(config, "attention_hidden_size", 2 * d_model)  # else transformers cannot run it
    head_dim = optional_size(config, field_name(config, "attention_head_dim", "head_dim"))
    if (head_dim is None and 2 * d_model % num_heads) or num_heads % groups:
        expected = f"a divisor of {2 * d_model}, and a multiple of {groups}"
        raise ConfigError("config.json: num_attention_heads", f"{num_heads}", expected)
    head_dim = head_dim or 2 * d_model // num_heads
    symbols = {"d": d_model, "h": num_heads, "g": groups, "k": head_dim}
    queries = 2 * d if num_heads * head_dim == 2 * d_model else h * k
    return Heads(symbols, queries, queries if groups == num_heads else g * k)


def _mamba(config: Mapping[str, Any], d_model: int, prefix: str) -> Mixer:
    mixer = mamba2(
        f"{BLOCK}{prefix}.mamba",
        read_mamba2(config, d_model, groups="mamba_ngroups", defaults=(8, 64)),
        d_model,
        bias=flag(config, "add_bias_linear", False),
    )
    first = norm(f"{BLOCK}{prefix}.input_layernorm", components.MIXER_NORM)
    return replace(mixer, tensors=(*first, *mixer.tensors))


def _shared_block(
    config: Mapping[str, Any], heads: Heads, hybrid: list[int], block: int, blocks: int
) -> tuple[Tensor, ...]:
    """The ``block``-th of ``blocks`` that take turns, with the adapters of its layers."""
    attention, mlp = f"{_SHARED}.self_attn", f"{_SHARED}.feed_forward"
    bias = flag(config, "add_bias_linear", False)
    turns = range(block, len(hybrid), blocks)

    def adapters(name: str, outputs: Polynomial, inputs: Polynomial) -> list[Tensor]:
        part = components.ADAPTER
        return [
            tensor
            for turn in turns
            for tensor in (
                *linear(f"{name}_adapter_list.{turn}.0", RANK, inputs, part),
                *linear(f"{name}_adapter_list.{turn}.1", outputs, RANK, part),
            )
        ]

    adapted = flag(config, "use_shared_attention_adapter", False)
    tensors = (
        *shared_attention(_SHARED, heads),
        *linear(f"{mlp}.gate_up_proj", 2 * f, d, components.FEED_FORWARD_GATE_UP, bias=bias),
        *linear(f"{mlp}.down_proj", d, f, components.FEED_FORWARD_DOWN, bias=bias),
    )
    own = [
        *(
            each
            for x in ("qkv" if adapted else "")
            for each in adapters(f"{attention}.linear_{x}", 2 * d, 2 * d)
        ),
        *adapters(f"{mlp}.gate_up_proj", 2 * f, d),
    ]
    group = LayerGroup(ONE, (hybrid[block],))
    shared = (replace(each, runs=len(turns)) for each in within(group, *tensors))
    return (*shared, *within(group, *own))


def shared_attention(prefix: str, heads: Heads) -> tuple[Tensor, ...]:
    """Both norms of a shared block, and its attention over the stream beside the embeddings."""
    attention = f"{prefix}.self_attn"
    return (
        *norm(f"{prefix}.input_layernorm", components.ATTENTION_NORM, width=2 * d),
        *linear(f"{attention}.q_proj", heads.queries, 2 * d, components.ATTENTION_QUERY),
        *linear(f"{attention}.k_proj", heads.keys, 2 * d, components.ATTENTION_KEY),
        *linear(f"{attention}.v_proj", heads.keys, 2 * d, components.ATTENTION_VALUE),
        *linear(f"{attention}.o_proj", d, heads.queries, components.ATTENTION_OUTPUT),
        *norm(f"{prefix}.pre_ff_layernorm", components.FEED_FORWARD_NORM),
    )
