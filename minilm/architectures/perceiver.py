"""Perceiver IO: latents attend to any input once, then to each other; queries of the output read them.

A token meets the latents alone, so there is no cost of a token: no FLOPs are told. Of its classes those of
optical flow and of several inputs are not declared. Names, shapes and defaults:
huggingface/transformers `models/perceiver`.
"""

from __future__ import annotations

from reprlib import repr as shortened
from typing import NamedTuple

from minilm.architectures.building_blocks import L, T, V, d
from minilm.architectures.config_fields import layers, optional_size, size
from minilm.architectures.staged_vision import (
    IMAGES,
    Config,
    Map,
    Size,
    Tensors,
    as_class,
    feed_forward,
    norms,
    plain,
    projections,
    tensors_of,
)
from minilm.architectures.task_heads import C, class_name_of
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role

_CROSS, _POSITION = components.CROSS_ATTENTION, components.POSITION_EMBEDDING
_INPUTS, _DECODER = "perceiver.input_preprocessor.", "perceiver.decoder."
_OF_TEXT = ("ForMaskedLM", "ForSequenceClassification")
_COLOURS, _SIDE = 3, 7  # of pictures and of a convolution over them, whatever config.json says
_CONVOLVED, _MAPPED = 64, 256  # channels after a convolution, and after one of single pixels
_WAVES = 2 * (
    2 * 64 + 1
)  # sines and cosines of 64 frequencies down and across, and the place itself
_MASKED_KEYS = 256  # of the decoder over text


class _Attention(NamedTuple):
    """Widths of queries' inputs, of keys' and values' inputs, of keys and of values."""

    inputs: Size
    others: Size
    keys: Size
    values: Size


class _Class(NamedTuple):
    """How wide the inputs are, what makes them, and what reads the latents."""

    width: int
    before: Tensors
    after: Tensors


def layout(config: Config) -> Layout:
    """The tensors of a class of Perceiver for a config.json."""
    name, text = class_name_of(config), size(config, "d_model", 768)
    symbols = {
        "d": size(config, "d_latents", 1280),
        "L": layers(config, "num_self_attends_per_block", 26),
    }
    classes = {
        "ForMaskedLM": _Class(text, _text(text), _masked(text)),
        "ForSequenceClassification": _Class(text, _text(text), _classifier()),
        f"{IMAGES}Learned": _Class(2 * _MAPPED, _learned(config), _classifier()),
        f"{IMAGES}Fourier": _Class(_COLOURS + _WAVES, (), _classifier()),
        f"{IMAGES}ConvProcessing": _Class(_CONVOLVED + _WAVES, _convolved(), _classifier()),
    }
    if name.endswith(_OF_TEXT):
        symbols["V"] = size(config, "vocab_size", 262)
        symbols["T"] = size(config, "max_position_embeddings", 2048)
    widths = (each.width for ending, each in classes.items() if name.endswith(ending))
    return as_class(
        config,
        "perceiver",
        _body(config, next(widths, text)),
        {ending: (*each.before, *each.after) for ending, each in classes.items()},
        symbols=symbols,
        batch_norms=("convnet.batchnorm",),
    )


def _body(config: Config, width: int) -> Tensors:
    """The latents, one layer in which they attend to inputs of ``width``, and those of their own."""
    keys: Size = optional_size(config, "qk_channels") or d
    alone = _Attention(d, d, keys, optional_size(config, "v_channels") or keys)
    shape = config.get("cross_attention_shape_for_attention") or "kv"
    if shape not in ("q", "kv"):
        raise ConfigError(
            "config.json: cross_attention_shape_for_attention", shortened(shape), "q or kv"
        )
    keys = optional_size(config, "qk_channels") or (d if shape == "q" else width)
    crossing = _Attention(d, width, keys, optional_size(config, "v_channels") or keys)
    return (
        plain("embeddings.latents", _CROSS, (size(config, "num_latents", 256), d)),
        *tensors_of("encoder.cross_attention.", _layer(crossing, _factor(config, "cross"))),
        *tensors_of(
            "encoder.self_attends.{i}.", _layer(alone, _factor(config, "self"), crosses=False), L
        ),
    )


def _factor(config: Config, kind: str) -> int:
    return size(config, f"{kind}_attention_widening_factor", 1)


def _layer(sizes: _Attention, factor: int = 1, *, crosses: bool = True) -> tuple[Map, ...]:
    """Attention and a feed-forward of ``factor`` times the width."""
    inputs, others, keys, values = sizes
    first, second = norms("attention.self.layernorm1 layernorm", inputs)
    other = Map("attention.self.layernorm2", _CROSS, (others,))
    query, key, value, output = projections(
        "attention.self.query attention.self.key attention.self.value attention.output.dense", d
    )
    maps = (
        first,
        *((other,) if crosses else ()),
        query._replace(shape=(keys, inputs)),
        key._replace(shape=(keys, others)),
        value._replace(shape=(values, others)),
        output._replace(shape=(inputs if crosses else values, values)),
        second,
        *feed_forward("mlp.dense1 mlp.dense2", inputs, factor * inputs),
    )
    return tuple(each._replace(component=_CROSS) for each in maps) if crosses else maps


def _text(width: int) -> Tensors:
    tables = (("embeddings", V, components.TOKEN_EMBEDDING), ("position_embeddings", T, _POSITION))
    return tuple(
        plain(f"{_INPUTS}{name}.weight", part, (rows, width), role=Role.LOOKED_UP)
        for name, rows, part in tables
    )


def _learned(config: Config) -> Tensors:
    """A map of single pixels beside a learned position of each, which is mapped too."""
    pixels = size(config, "image_size", 56) ** 2
    table = f"{_INPUTS}position_embeddings.position_embeddings"
    maps = (
        Map("convnet_1x1", components.PATCH_EMBEDDING, (_MAPPED, _COLOURS, 1, 1)),
        Map("positions_projection", _POSITION, (_MAPPED, _MAPPED)),
    )
    return (plain(table, _POSITION, (pixels, _MAPPED)), *tensors_of(_INPUTS, maps))


def _convolved() -> Tensors:
    part = components.PATCH_EMBEDDING
    filters = (_CONVOLVED, _COLOURS, _SIDE, _SIDE)
    maps = (Map("conv", part, filters, bias=False), Map("batchnorm", part, (_CONVOLVED,)))
    return tensors_of(f"{_INPUTS}convnet.", maps)


def _masked(width: int) -> Tensors:
    """A query for each place of the text; what they read is compared with the table."""
    sizes = _Attention(width, d, _MASKED_KEYS, width)
    table = f"{_DECODER}output_position_encodings.position_embeddings"
    return (
        plain(table, _CROSS, (T, width)),
        *tensors_of(f"{_DECODER}decoding_cross_attention.", _layer(sizes)),
        plain("embedding_decoder.bias", components.LM_HEAD, (V,), role=Role.ADDED),
    )


def _classifier() -> Tensors:
    """One query, as wide as the latents."""
    prefix = f"{_DECODER}decoder."
    table = f"{prefix}output_position_encodings.position_embeddings"
    return (
        plain(table, _CROSS, (1, d)),
        *tensors_of(f"{prefix}decoding_cross_attention.", _layer(_Attention(d, d, d, d))),
        *tensors_of(prefix, (Map("final_layer", components.CLASSIFIER, (C, d)),)),
    )
