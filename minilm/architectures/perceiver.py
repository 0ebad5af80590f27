"""Perceiver IO: latents attend to any input once, then to each other; queries of the output read them.

A token meets the latents alone, so there is no cost of a token: no FLOPs are told. Of its classes those of
optical flow and of several inputs are not declared. Names, shapes and defaults:
huggingface/transformers `models/perceiver`.
"""

from __future__ import annotations

from typing import NamedTuple

from minilm.architectures.building_blocks import L, T, V, d
from minilm.architectures.config_fields import Config, choice, layers, optional_size, size
from minilm.architectures.task_heads import C, class_name_of, number_of_classes
from minilm.architectures.vision_parts import (
    IMAGES,
    NOTHING,
    as_class,
    batch_norm,
    convolution,
    feed_forward,
    in_layers,
    joined,
    linear,
    norm,
    parameter,
    under,
)
from minilm.architectures.vision_tower import Part, Width, changed
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role

_CROSS, _POSITION = components.CROSS_ATTENTION, components.POSITION_EMBEDDING
_INPUTS, _DECODER = "perceiver.input_preprocessor.", "perceiver.decoder."
_QUERIES = "output_position_encodings.position_embeddings"
_COLOURS, _SIDE = 3, 7  # of pictures and of a convolution over them, whatever config.json says
_CONVOLVED, _MAPPED = 64, 256  # channels after a convolution, and after one of single pixels
_WAVES = 2 * (
    2 * 64 + 1
)  # sines and cosines of 64 frequencies down and across, and the place itself
_MASKED_KEYS = 256  # of the decoder over text


class _Attention(NamedTuple):
    """Widths of queries' inputs, of keys' and values' inputs, of keys and of values."""

    inputs: Width
    others: Width
    keys: Width
    values: Width


class _Class(NamedTuple):
    """How wide the inputs are, what makes them, and what reads the latents."""

    width: int
    before: Part
    after: Part


def layout(config: Config) -> Layout:
    """The tensors of a class of Perceiver for a config.json."""
    name, text = class_name_of(config), size(config, "d_model", 768)
    reader, words = _classifier(config), _text(config, text)
    classes = {
        "ForMaskedLM": _Class(text, words, _masked(text)),
        "ForSequenceClassification": _Class(text, words, reader),
        f"{IMAGES}Learned": _Class(2 * _MAPPED, _learned(config), reader),
        f"{IMAGES}Fourier": _Class(_COLOURS + _WAVES, NOTHING, reader),
        f"{IMAGES}ConvProcessing": _Class(_CONVOLVED + _WAVES, _convolved(), reader),
    }
    widths = (each.width for ending, each in classes.items() if name.endswith(ending))
    body = _body(config, next(widths, text))
    whole = under("perceiver.", body)
    heads = {end: joined(whole, each.before, each.after) for end, each in classes.items()}
    return as_class(config, {"Model": body, **heads})


def _body(config: Config, width: int) -> Part:
    """The latents, one layer in which they attend to inputs of ``width``, and those of their own."""
    symbols = {
        "d": size(config, "d_latents", 1280),
        "L": layers(config, "num_self_attends_per_block", 26),
    }
    keys: Width = optional_size(config, "qk_channels") or d
    alone = _Attention(d, d, keys, optional_size(config, "v_channels") or keys)
    shape = choice(config, "cross_attention_shape_for_attention", "kv", ("q", "kv"))
    keys = optional_size(config, "qk_channels") or (d if shape == "q" else width)
    crossing = _Attention(d, width, keys, optional_size(config, "v_channels") or keys)
    layer = _layer(alone, _factor(config, "self"), crosses=False)
    return joined(
        Part((), symbols),
        parameter("embeddings.latents", (size(config, "num_latents", 256), d), _CROSS),
        under("encoder.cross_attention.", _layer(crossing, _factor(config, "cross"))),
        in_layers(under("encoder.self_attends.{i}.", layer), L),
    )


def _factor(config: Config, kind: str) -> int:
    return size(config, f"{kind}_attention_widening_factor", 1)


def _layer(widths: _Attention, factor: int = 1, *, crosses: bool = True) -> Part:
    """Attention and a feed-forward of ``factor`` times the width."""
    inputs, others, keys, values = widths
    inside, output = "attention.self", components.ATTENTION_OUTPUT
    part = joined(
        norm(f"{inside}.layernorm1", inputs, components.ATTENTION_NORM),
        norm(f"{inside}.layernorm2", others, _CROSS) if crosses else NOTHING,
        linear(f"{inside}.query", keys, inputs, components.ATTENTION_QUERY),
        linear(f"{inside}.key", keys, others, components.ATTENTION_KEY),
        linear(f"{inside}.value", values, others, components.ATTENTION_VALUE),
        linear("attention.output.dense", inputs if crosses else values, values, output),
        norm("layernorm", inputs, components.FEED_FORWARD_NORM),
        feed_forward("mlp.dense1 mlp.dense2", inputs, factor * inputs),
    )
    return changed(part, lambda _: {"component": _CROSS}) if crosses else part


def _text(config: Config, width: int) -> Part:
    words, places, looked_up = (
        components.TOKEN_EMBEDDING,
        components.POSITION_EMBEDDING,
        Role.LOOKED_UP,
    )
    symbols = {
        "V": size(config, "vocab_size", 262),
        "T": size(config, "max_position_embeddings", 2048),
    }
    tables = under(
        _INPUTS,
        parameter("embeddings.weight", (V, width), words, looked_up),
        parameter("position_embeddings.weight", (T, width), places, looked_up),
    )
    return tables._replace(symbols=symbols)


def _learned(config: Config) -> Part:
    """A map of single pixels beside a learned position of each, which is mapped too."""
    pixels, part = size(config, "image_size", 56) ** 2, components.PATCH_EMBEDDING
    return under(
        _INPUTS,
        parameter("position_embeddings.position_embeddings", (pixels, _MAPPED), _POSITION),
        convolution("convnet_1x1", _MAPPED, _COLOURS, 1, part, bias=True),
        linear("positions_projection", _MAPPED, _MAPPED, _POSITION),
    )


def _convolved() -> Part:
    part = components.PATCH_EMBEDDING
    return under(
        f"{_INPUTS}convnet.",
        convolution("conv", _CONVOLVED, _COLOURS, _SIDE, part),
        batch_norm("batchnorm", _CONVOLVED, part),
    )


def _masked(width: int) -> Part:
    """A query for each place of the text; what they read is compared with the table."""
    layer = _layer(_Attention(width, d, _MASKED_KEYS, width))
    return joined(
        parameter(f"{_DECODER}{_QUERIES}", (T, width), _CROSS),
        under(f"{_DECODER}decoding_cross_attention.", layer),
        parameter("embedding_decoder.bias", (V,), components.LM_HEAD, Role.ADDED),
    )


def _classifier(config: Config) -> Part:
    """One query, as wide as the latents."""
    reader = under(
        f"{_DECODER}decoder.",
        parameter(_QUERIES, (1, d), _CROSS),
        under("decoding_cross_attention.", _layer(_Attention(d, d, d, d))),
        linear("final_layer", C, d, components.CLASSIFIER),
    )
    return reader._replace(symbols={"C": number_of_classes(config)})
