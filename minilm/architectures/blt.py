"""BLT as transformers stores it: bytes in patches, which end where a small decoder is surprised.

A local encoder of bytes and their hashed n-grams gives patches to a global transformer, and a local decoder
takes them back by cross-attention. How often the global one runs follows from the text: what a byte costs is
not told. Names, shapes and defaults: huggingface/transformers `models/blt`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from minilm.architectures.building_blocks import linear, norm
from minilm.architectures.config_fields import (
    flag,
    layers,
    optional_flag,
    optional_size,
    size,
    sizes,
    sub_config,
)
from minilm.architectures.task_heads import class_ending
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial

Config = Mapping[str, Any]


class _Stack(NamedTuple):
    """Layers below ``name``: how many, their widths, and the matrices of their attention, (rows, columns)."""

    name: str
    layers: int
    width: Polynomial
    inner: Polynomial
    attention: tuple[tuple[str, Polynomial, Polynomial, str], ...]


def layout(config: Config) -> Layout:
    """The tensors of BltForCausalLM for a config.json."""
    class_ending(config, ("ForCausalLM",))
    first, last = sub_config(config, "encoder_config"), sub_config(config, "decoder_config")
    encoder = _stack("model.local_encoder", first, 1024, 1, 16, None)
    whole = _stack(
        "model.global_transformer", sub_config(config, "global_config"), 2048, 25, 16, 5632
    )
    decoder = _stack("model.local_decoder", last, 1024, 9, 16, 2816)
    rows, vocabulary = size(first, "vocab_size", 260), size(config, "vocab_size", 260)
    tied = flag(config, "tie_word_embeddings", False)
    if tied and (rows, encoder.width) != (vocabulary, decoder.width):
        problem = "false: table and head differ"
        raise ConfigError("config.json: tie_word_embeddings", "true", problem)
    patches = size(config, "cross_attn_k", 2) * encoder.width
    projection = f"{whole.name}.token_embedding_projection"
    tensors = (
        *(() if tied else (_table("model.local_encoder.embed_tokens", rows, encoder.width),)),
        _ngrams(config, encoder.width),
        *_local(encoder, first, encoder.width, crosses_all=False),
        *(_map(projection, whole.width, patches) if patches != whole.width else ()),
        *_layers(whole),
        *_local(
            decoder,
            last,
            as_polynomial(size(last, "hidden_size_global", 2048)),
            crosses_all=True,
        ),
        *norm(f"{decoder.name}.norm", components.FINAL_NORM, width=decoder.width, repeat=ONE),
        *_map("lm_head", as_polynomial(vocabulary), decoder.width, components.LM_HEAD),
        *(
            _patcher(sub_config(config, "patcher_config"))
            if optional_flag(config, "patch_in_forward", True)
            else ()
        ),
    )
    once = {Role.MULTIPLIED: Role.ONCE}
    return Layout(
        "blt",
        tuple(replace(each, role=once.get(each.role, each.role)) for each in tensors),
        {},
        ties=(("model.local_encoder.embed_tokens.weight", "lm_head.weight"),) if tied else (),
        context_length=size(config, "max_position_embeddings", 4096),
    )


def _map(
    name: str,
    rows: Polynomial,
    columns: Polynomial,
    component: str = components.EMBEDDING_PROJECTION,
) -> Tensors:
    return linear(name, rows, columns, component, repeat=ONE)


def _ngrams(config: Config, width: Polynomial) -> Tensor:
    """One table for the hashes of all lengths."""
    field, lengths = "encoder_hash_byte_group_size", [3, 4, 5, 6, 7, 8]
    if config.get(field) is not None:
        lengths = sizes(config, field, ())
    functions = size(config, "encoder_hash_byte_group_nb_functions", 1)
    rows = size(config, "encoder_hash_byte_group_vocab", 500002) * functions * len(lengths)
    return _table("model.encoder_hash_tok_embedding", rows, width, components.NGRAM_EMBEDDING)


def _local(stack: _Stack, config: Config, given: Polynomial, *, crosses_all: bool) -> Tensors:
    """Layers of bytes, and what stands between them and patches."""
    patches = size(config, "cross_attn_k", 2) * stack.width
    in_all = optional_flag(config, "cross_attn_all_layers", crosses_all)
    return (
        *_layers(stack),
        *_map(f"{stack.name}.patch_embedding_projection", patches, given),
        *_crossing(stack, stack.layers if in_all else 1),
    )


def _table(
    name: str, rows: int, width: Polynomial, component: str = components.TOKEN_EMBEDDING
) -> Tensor:
    return Tensor(f"{name}.weight", (as_polynomial(rows), width), component, Role.LOOKED_UP)


def _stack(
    name: str, config: Config, width: int, depth: int, heads: int, inner: int | None
) -> _Stack:
    width = size(config, "hidden_size", width)
    heads = size(config, "num_attention_heads", heads)
    groups = optional_size(config, "num_key_value_heads", None) or heads
    inner = optional_size(config, "intermediate_size", inner) or 8 * width // 3
    d, queries, keys = (
        as_polynomial(each) for each in (width, width // heads * heads, width // heads * groups)
    )
    attention = (
        ("q_proj", queries, d, components.ATTENTION_QUERY),
        ("k_proj", keys, d, components.ATTENTION_KEY),
        ("v_proj", keys, d, components.ATTENTION_VALUE),
        ("o_proj", d, queries, components.ATTENTION_OUTPUT),
    )
    return _Stack(
        name, layers(config, "num_hidden_layers", depth), d, as_polynomial(inner), attention
    )


def _layers(stack: _Stack) -> Tensors:
    block, repeat = f"{stack.name}.layers.{{i}}", as_polynomial(stack.layers)
    matrices = (
        *((f"self_attn.{name}", rows, columns, of) for name, rows, columns, of in stack.attention),
        ("mlp.gate_proj", stack.inner, stack.width, components.FEED_FORWARD_GATE),
        ("mlp.up_proj", stack.inner, stack.width, components.FEED_FORWARD_UP),
        ("mlp.down_proj", stack.width, stack.inner, components.FEED_FORWARD_DOWN),
    )
    norms = (
        ("input_layernorm", components.ATTENTION_NORM),
        ("post_attention_layernorm", components.FEED_FORWARD_NORM),
    )
    return (
        *(
            t
            for name, rows, columns, part in matrices
            for t in linear(f"{block}.{name}", rows, columns, part, repeat=repeat)
        ),
        *(
            t
            for name, part in norms
            for t in norm(f"{block}.{name}", part, width=stack.width, repeat=repeat)
        ),
    )


def _crossing(stack: _Stack, number: int) -> Tensors:
    block, part = f"{stack.name}.cross_attn_layers.{{i}}", components.CROSS_ATTENTION
    repeat = as_polynomial(number)
    return (
        *(
            t
            for name, rows, columns, _ in stack.attention
            for t in linear(f"{block}.{name}", rows, columns, part, repeat=repeat)
        ),
        *(
            t
            for name in ("q_norm", "k_norm")
            for t in norm(f"{block}.{name}", part, width=stack.width, repeat=repeat)
        ),
    )


def _patcher(config: Config) -> Tensors:
    """A language model of bytes, trained before and frozen."""
    stack = _stack("model.patcher", config, 768, 14, 12, 2048)
    rows = size(config, "vocab_size", 260)
    tensors = (
        _table(f"{stack.name}.embed_tokens", rows, stack.width),
        *_layers(stack),
        *norm(f"{stack.name}.norm", components.FINAL_NORM, width=stack.width, repeat=ONE),
        *linear(
            f"{stack.name}.lm_head",
            as_polynomial(rows),
            stack.width,
            components.LM_HEAD,
            repeat=ONE,
        ),
    )
    return tuple(replace(each, component=components.PATCHER, frozen=True) for each in tensors)
