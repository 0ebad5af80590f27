"""Pix2Struct: an encoder over patches of any picture, and T5's decoder under other names.

Positions of patches are of their row and column. The encoder runs once a picture. Names, shapes and
defaults: huggingface/transformers `models/pix2struct`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.building_blocks import (
    L,
    V,
    d,
    equal_heads,
    gated_feed_forward,
    h,
    linear,
    lm_head,
    norm,
)
from minilm.architectures.config_fields import Config, flag, layers, size, sub_config
from minilm.architectures.task_heads import WITH_ENCODERS, class_name_of, undeclared_class
from minilm.architectures.vision_tower import F, Part, W, Y, gain, matrix, without_bias
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial


def layout(config: Config) -> Layout:
    """The tensors of Pix2StructForConditionalGeneration for a config.json."""
    name = class_name_of(config)
    if name and not name.endswith(WITH_ENCODERS):
        raise undeclared_class(config)
    text = sub_config(config, "text_config", "pix2struct_text_model")
    heads = equal_heads(
        text,
        (768, 12, None, None),
        heads="num_heads",
    )
    vision = patches(
        sub_config(config, "vision_config"),
        "encoder",
        inside="encoder.encoder",
        fields=("d_kv", "d_ff", "seq_len"),
        defaults=(768, 12, 12, 2048),
    )
    tied = flag(config, "tie_word_embeddings", False)
    table = Tensor(
        "decoder.embed_tokens.weight", (V, d), components.TOKEN_EMBEDDING, Role.LOOKED_UP
    )
    return Layout(
        "pix2struct",
        (
            *vision.tensors,
            table,
            *_decoder(text),
            *norm("decoder.final_layer_norm", components.FINAL_NORM, repeat=ONE),
            *lm_head("decoder.lm_head", tied=tied),
        ),
        {
            "V": size(text, "vocab_size", 50244),
            "L": layers(text, "num_layers", 12),
            "f": size(text, "d_ff", 2048),
            **heads.symbols,
            **vision.symbols,
        },
        ties=(("decoder.lm_head.weight", table.name),) if tied else (),
        attention=(heads.attention(),),
    )


def _decoder(config: Config) -> Tensors:
    block, buckets = "decoder.layer.{i}", size(config, "relative_attention_num_buckets", 32)
    own, crossing = f"{block}.self_attention", f"{block}.encoder_decoder_attention"
    part = components.CROSS_ATTENTION
    cross = (
        replace(
            t,
            component=part,
            role=Role.ONCE if ".key." in t.name or ".value." in t.name else t.role,
        )
        for t in _attention(f"{crossing}.attention")
    )
    positions = Tensor(
        "decoder.layer.0.self_attention.attention.relative_attention_bias.weight",
        (as_polynomial(buckets), h),
        components.POSITION_EMBEDDING,
        Role.LOOKED_UP,
    )
    return (
        *_attention(f"{own}.attention"),
        positions,
        *norm(f"{own}.layer_norm", components.ATTENTION_NORM),
        *cross,
        *norm(f"{crossing}.layer_norm", part),
        *gated_feed_forward(f"{block}.mlp.DenseReluDense", names=("wi_0", "wi_1", "wo")),
        *norm(f"{block}.mlp.layer_norm", components.FEED_FORWARD_NORM),
    )


def _attention(prefix: str) -> Tensors:
    maps = {
        "query": components.ATTENTION_QUERY,
        "key": components.ATTENTION_KEY,
        "value": components.ATTENTION_VALUE,
        "output": components.ATTENTION_OUTPUT,
    }
    return tuple(
        t for n, part in maps.items() for t in linear(f"{prefix}.{n}", d, d, part, repeat=L)
    )


def patches(
    config: Config,
    name: str,
    *,
    inside: str,
    fields: tuple[str, str, str],
    defaults: tuple[int, int, int, int],
) -> Part:
    """The encoder ``name``, its layers ``inside`` a further one.

    ``fields`` are those of a head's width, the feed-forward's and the number of rows; ``defaults`` width,
    layers, heads and feed-forward width.
    """
    head, inner, rows = fields
    width, depth, heads, forward = defaults
    queries: Polynomial = as_polynomial(
        size(config, "num_attention_heads", heads) * size(config, head, 64)
    )
    number, block = size(config, rows, 4096), f"{inside}.layer.{{i}}"
    tensors = (
        *matrix(
            f"{name}.embeddings.patch_projection", (W, size(config, "patch_embed_hidden_size", 768))
        ),
        *(without_bias(f"{name}.embeddings.{n}_embedder", number, W) for n in ("row", "column")),
        *(
            without_bias(f"{block}.attention.{n}", queries, W, repeat=Y)
            for n in ("query", "key", "value")
        ),
        without_bias(f"{block}.attention.output", W, queries, repeat=Y),
        without_bias(f"{block}.mlp.wi_0", F, W, repeat=Y),
        without_bias(f"{block}.mlp.wi_1", F, W, repeat=Y),
        without_bias(f"{block}.mlp.wo", W, F, repeat=Y),
        gain(f"{block}.pre_attention_layer_norm", W, Y),
        gain(f"{block}.pre_mlp_layer_norm", W, Y),
        gain(f"{name}.layernorm", W),
    )
    symbols = {
        "W": size(config, "hidden_size", width),
        "Y": layers(config, "num_hidden_layers", depth),
        "F": size(config, inner, forward),
    }
    return Part(tensors, symbols)
