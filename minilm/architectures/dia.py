"""Dia: an encoder over letters, and a decoder of a sound's codes, several at a time, which attends to it.

A step of the decoder is one code of each channel. Names, shapes and defaults: huggingface/transformers
`models/dia`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.bart import as_encoder
from minilm.architectures.building_blocks import (
    L,
    V,
    d,
    f,
    linear,
    norm,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import Config, layers, size, sub_config
from minilm.architectures.task_heads import WITH_ENCODERS, class_name_of, undeclared_class
from minilm.architectures.vision_tower import Part, in_numbers
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial


def layout(config: Config) -> Layout:
    """The tensors of a class of this type for a config.json."""
    name = class_name_of(config)
    if name and not name.endswith((WITH_ENCODERS, "Model")):
        raise undeclared_class(config)
    is_body = name.endswith("Model")
    prefix = "" if is_body else "model."
    fields = sub_config(config, "decoder_config")
    heads = read_heads(fields, defaults=(2048, 16, 4, 128))
    channels = size(fields, "num_channels", 9)
    symbols = {
        "V": size(fields, "vocab_size", 1028) * channels,
        "L": layers(fields, "num_hidden_layers", 18),
        "f": size(fields, "intermediate_size", 8192),
        **heads.symbols,
    }
    body, block = f"{prefix}decoder", f"{prefix}decoder.layers.{{i}}"
    cross, seen = _cross_attention(fields, f"{block}.cross_attention")
    table = f"{body}.embeddings.embed.weight"
    return Layout(
        "dia",
        (
            Tensor(table, (V, d), components.TOKEN_EMBEDDING, Role.LOOKED_UP),
            *separate_attention(f"{block}.self_attention", heads),
            *cross,
            *_feed_forward(f"{block}.mlp"),
            *norm(f"{block}.pre_sa_norm", components.ATTENTION_NORM),
            *norm(f"{block}.pre_ca_norm", components.CROSS_ATTENTION),
            *norm(f"{block}.pre_mlp_norm", components.FEED_FORWARD_NORM),
            *norm(f"{body}.norm", components.FINAL_NORM, repeat=ONE),
            *(() if is_body else linear("logits_dense", V, d, components.LM_HEAD, repeat=ONE)),
            *_encoder(sub_config(config, "encoder_config"), f"{prefix}encoder"),
        ),
        symbols,
        attention=(heads.attention(), seen),
        context_length=size(fields, "max_position_embeddings", 3072),
    )


def _cross_attention(config: Config, name: str) -> tuple[Tensors, AttentionSpec]:
    """Heads of its own, keys and values of the encoder's width."""
    many = size(config, "cross_num_attention_heads", 16)
    groups = size(config, "cross_num_key_value_heads", 16)
    width = size(config, "cross_head_dim", 128)
    if many % groups:
        expected = f"a divisor of {many}"
        raise ConfigError("config.json: cross_num_key_value_heads", f"{groups}", expected)
    queries, keys = as_polynomial(many * width), as_polynomial(groups * width)
    heard, part = as_polynomial(size(config, "cross_hidden_size", 1024)), components.CROSS_ATTENTION

    def maps(kind: str, outputs: Polynomial, inputs: Polynomial, role: Role) -> Tensor:
        return replace(linear(f"{name}.{kind}_proj", outputs, inputs, part)[0], role=role)

    tensors = (
        maps("q", queries, d, Role.MULTIPLIED),
        maps("k", keys, heard, Role.ONCE),
        maps("v", keys, heard, Role.ONCE),
        maps("o", d, queries, Role.MULTIPLIED),
    )
    return tensors, AttentionSpec(L, 2 * keys, queries, queries)


def _feed_forward(name: str) -> Tensors:
    return (
        *linear(f"{name}.gate_up_proj", 2 * f, d, components.FEED_FORWARD_GATE_UP),
        *linear(f"{name}.down_proj", d, f, components.FEED_FORWARD_DOWN),
    )


def _encoder(config: Config, name: str) -> Tensors:
    heads = read_heads(config, defaults=(1024, 16, 16, 128))
    block, part = f"{name}.layers.{{i}}", components.ENCODER
    tensors = (
        Tensor(f"{name}.embedding.weight", (V, d), part, Role.LOOKED_UP),
        *separate_attention(f"{block}.self_attention", heads),
        *_feed_forward(f"{block}.mlp"),
        *norm(f"{block}.pre_sa_norm", part),
        *norm(f"{block}.post_sa_norm", part),
        *norm(f"{name}.norm", part, repeat=ONE),
    )
    symbols = {
        "V": size(config, "vocab_size", 256),
        "L": layers(config, "num_hidden_layers", 12),
        "f": size(config, "intermediate_size", 4096),
        **heads.symbols,
    }
    return as_encoder(in_numbers(Part(tensors, symbols)).tensors)
