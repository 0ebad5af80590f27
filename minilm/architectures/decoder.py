"""What most decoders have around the blocks that their families declare: embedding, final norm, head.

`Defaults` are those of a type's configuration class in transformers; `decoder` makes the Layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    embedding,
    k,
    lm_head,
    norm,
    read_heads,
)
from minilm.architectures.config_fields import field_name, flag, layers, size
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Tensor
from minilm.ledger.symbols import ONE, ZERO, Polynomial

BLOCK = "model.layers.{i}"
ATTENTION = f"{BLOCK}.self_attn"
MLP = f"{BLOCK}.mlp"


@dataclass(frozen=True)
class Defaults:
    """``heads`` are width, heads, key/value heads (None: as many) and head width (None: width / heads).

    ``context`` is 0 for a type that has no such field.
    """

    vocabulary: int
    layers: int
    heads: tuple[int, int, int | None, int | None]
    feed_forward: int = 0
    context: int = 2048
    tied: bool = False
    experts: tuple[int, int | None, int] = (0, None, 0)  # in all, active, their width
    window: int = 0


def heads_and_layers(
    config: Mapping[str, Any],
    defaults: Defaults,
    *,
    head_dim: str | None = "head_dim",
    rounds: bool = False,
) -> tuple[Heads, int]:
    """What a block is declared with, under the usual field names."""
    heads = read_heads(config, head_dim=head_dim, defaults=defaults.heads, rounds=rounds)
    return heads, layers(config, "num_hidden_layers", defaults.layers)


def decoder(
    config: Mapping[str, Any],
    defaults: Defaults,
    heads: Heads,
    *block: Tensor,
    symbols: Mapping[str, int] | None = None,
    attention: Sequence[AttentionSpec] | None = None,
    state: Polynomial = ZERO,
    mixing: Polynomial = ZERO,
    buffers: tuple[Tensor, ...] = (),
    table: str = "model.embed_tokens",
    before: tuple[Tensor, ...] = (),
    final_norm: str = "model.norm",
    norm_bias: bool = False,
    head: str = "lm_head",
    head_bias: bool = False,
    fields: Mapping[str, str] | None = None,
) -> Layout:
    """The layout of a decoder whose blocks have the tensors ``block``.

    ``symbols`` are letters beyond those of the heads, V and L; f is read where only a tensor has it.
    ``before`` stands between the embedding ``table`` and the blocks; ``final_norm`` is empty where its norm
    has no parameters. ``fields`` are the names that the family has for Llama's.
    """
    names = fields or {}

    def named(field: str, default: int) -> int:
        return size(config, names.get(field, field), default)

    tied = flag(config, "tie_word_embeddings", defaults.tied)
    values = {
        "V": named("vocab_size", defaults.vocabulary),
        "L": layers(config, names.get("num_hidden_layers", "num_hidden_layers"), defaults.layers),
    }
    if "f" not in (symbols or {}) and any(uses(tensor, "f") for tensor in block):
        values["f"] = named("intermediate_size", defaults.feed_forward)
    last = norm(final_norm, components.FINAL_NORM, bias=norm_bias, repeat=ONE) if final_norm else ()
    tokens = embedding(table)
    return Layout(
        config["model_type"],
        (tokens, *before, *block, *last, *lm_head(head, tied=tied, bias=head_bias)),
        {**values, **heads.symbols, **(symbols or {})},
        ties=((f"{head}.weight", tokens.name),) if tied else (),
        buffers=buffers,
        attention=(heads.attention(),) if attention is None else tuple(attention),
        state=state,
        mixing=mixing,
        context_length=named("max_position_embeddings", defaults.context)
        if defaults.context
        else 0,
    )


def gpt_fields(config: Mapping[str, Any]) -> dict[str, str]:
    """What GPT-2 calls Llama's fields, where a config says them so."""
    return {
        "hidden_size": field_name(config, "n_embd", "hidden_size"),
        "num_attention_heads": field_name(config, "n_head", "num_attention_heads"),
        "num_hidden_layers": field_name(config, "n_layer", "num_hidden_layers"),
        "max_position_embeddings": field_name(config, "n_positions", "max_position_embeddings"),
    }


def uses(tensor: Tensor, letter: str) -> bool:
    """Whether a tensor's size depends on the symbol."""
    return any(letter in dict(monomial) for monomial in tensor.count.terms)


def pre_norms(
    attention: str = f"{BLOCK}.input_layernorm",
    feed_forward: str = f"{BLOCK}.post_attention_layernorm",
    *,
    bias: bool = False,
) -> tuple[Tensor, ...]:
    """The norms in front of attention and feed-forward, under Llama's names unless others are given."""
    return (
        *norm(attention, components.ATTENTION_NORM, bias=bias),
        *norm(feed_forward, components.FEED_FORWARD_NORM, bias=bias),
    )


def post_norms(attention: str, feed_forward: str) -> tuple[Tensor, ...]:
    """The norms of what attention and feed-forward put out."""
    return (
        *norm(attention, components.ATTENTION_OUTPUT_NORM),
        *norm(feed_forward, components.FEED_FORWARD_OUTPUT_NORM),
    )


def query_key_norms(
    query: str = f"{ATTENTION}.q_norm",
    key: str = f"{ATTENTION}.k_norm",
    *,
    widths: tuple[Polynomial, Polynomial] = (k, k),
    bias: bool = False,
) -> tuple[Tensor, ...]:
    """The norms of queries and keys, by default each head's, with one gain for all heads."""
    return (
        *norm(query, components.ATTENTION_QK_NORM, width=widths[0], bias=bias),
        *norm(key, components.ATTENTION_QK_NORM, width=widths[1], bias=bias),
    )
