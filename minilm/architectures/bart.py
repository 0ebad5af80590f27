"""BART and its kin whole: an encoder beside the decoders of `bart_decoder.py`, with Whisper's over sound.

Encoder and decoder share the token table. The encoder runs once a text; a token of the decoder attends
to what it left, whose keys and values are computed once. Names, shapes and defaults:
huggingface/transformers `models/TYPE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from minilm.architectures.bart_decoder import VARIANTS, Variant, attention, decoder_of
from minilm.architectures.building_blocks import V, d, linear, norm
from minilm.architectures.config_fields import flag, layers, size
from minilm.architectures.task_heads import (
    class_name_of,
    head,
    number_of_classes,
    undeclared_class,
)
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

Y, F, P, C = (symbol(letter) for letter in "YFPC")
Config = Mapping[str, Any]
Tensors = tuple[Tensor, ...]

WHOLE = ("ForConditionalGeneration", "MTModel")


@dataclass(frozen=True)
class _Whole:
    """What a type has around `bart_decoder.py`'s decoder.

    ``positions`` are the field of the encoder's. ``logits_bias`` is a buffer. ``hears``: the encoder
    begins with convolutions over sound, and has no token table. ``classes`` are the rows of a classifier
    by default, 0 where none is declared. ``layers`` are the encoder's by default, 0 for the decoder's.
    """

    positions: str = "max_position_embeddings"
    logits_bias: bool = True
    hears: bool = False
    classes: int = 0
    layers: int = 0


_WHOLES = {
    "bart": _Whole(classes=3),
    "blenderbot": _Whole(layers=2),
    "mbart": _Whole(classes=2),
    "m2m_100": _Whole(logits_bias=False),
    "whisper": _Whole("max_source_positions", logits_bias=False, hears=True),
    "led": _Whole("max_encoder_position_embeddings"),
}
_M2M100 = replace(VARIANTS["xglm"], vocabulary=128112, layers=12, context=1024)
_MORE = {
    "m2m_100": replace(
        _M2M100,
        has_cross_attention=True,
        body="model.decoder",
        fields=VARIANTS["bart"].fields,
    ),
    "led": replace(
        VARIANTS["bart"],
        positions=0,
        body="led.decoder",
        fields=(*VARIANTS["bart"].fields[:4], "max_decoder_position_embeddings"),
    ),
}


def layout(config: Config) -> Layout:
    """The tensors of a class of these types, encoder and all, for a config.json."""
    family = config["model_type"]
    variant = _MORE.get(family) or VARIANTS[family]
    whole = _WHOLES.get(family, _Whole())
    decoder = decoder_of(config, variant)
    prefix = variant.body.removesuffix("decoder")
    symbols = dict(decoder.symbols) | {
        "Y": layers(config, "encoder_layers", whole.layers or variant.layers),
        "F": size(config, "encoder_ffn_dim", variant.feed_forward),
    }
    if variant.positions is not None:
        symbols["P"] = size(config, whole.positions, _positions(whole, variant))
    table, *others = (_with_encoder(tensor) for tensor in decoder.tensors)
    shared = table if whole.hears else replace(table, name=f"{prefix}shared.weight")
    encoder = _encoder(config, f"{prefix}encoder", variant, whole)
    ties = _ties(decoder, prefix, shared.name, whole)
    cross = AttentionSpec(
        decoder.attention[0].layers, 2 * d, d, d, fixed=symbols["P"] if whole.hears else 0
    )
    result = replace(
        decoder,
        tensors=(shared, *_own_tables(prefix, tied=bool(ties) or whole.hears), *encoder, *others),
        symbols=symbols,
        ties=ties,
        buffers=(
            (Tensor("final_logits_bias", (ONE, V), components.LM_HEAD, Role.ADDED),)
            if whole.logits_bias
            else ()
        ),
        attention=(*decoder.attention, cross),
    )
    return _with_class(result, config, prefix, whole)


def _positions(whole: _Whole, variant: Variant) -> int:
    return {"max_source_positions": 1500, "max_encoder_position_embeddings": 16384}.get(
        whole.positions, variant.context
    )


def _with_encoder(tensor: Tensor) -> Tensor:
    """Queries and outputs of cross-attention are a token's, keys and values the encoder's."""
    is_cross = tensor.component == components.CROSS_ATTENTION and tensor.role is Role.ONCE
    is_own = ".q_proj." in tensor.name or ".out_proj." in tensor.name
    return replace(tensor, role=Role.MULTIPLIED) if is_cross and is_own else tensor


def _ties(decoder: Layout, prefix: str, shared: str, whole: _Whole) -> tuple[tuple[str, str], ...]:
    if whole.hears or not decoder.ties:
        return decoder.ties
    names = (f"{prefix}{part}.embed_tokens.weight" for part in ("encoder", "decoder"))
    return (*((head, shared) for head, _ in decoder.ties), *((name, shared) for name in names))


def _encoder(config: Config, name: str, variant: Variant, whole: _Whole) -> Tensors:
    block = f"{name}.layers.{{i}}"
    bias = flag(config, "use_bias", False) if config["model_type"] == "bigbird_pegasus" else True
    if config["model_type"] == "led":
        matrices = _longformer(block)
    elif config["model_type"] == "bigbird_pegasus":
        matrices = _big_bird(block, bias)
    else:
        matrices = attention(f"{block}.self_attn", bias, bias and variant.has_key_bias)
    part = components.ENCODER
    rows: Polynomial = P + (variant.positions or 0)
    tensors = [
        *(_convolutions(config, name) if whole.hears else ()),
        *(
            (Tensor(f"{name}.embed_positions.weight", (rows, d), part, Role.LOOKED_UP),)
            if variant.positions is not None
            else ()
        ),
        *(
            norm(f"{name}.layernorm_embedding", part, bias=True, repeat=ONE)
            if variant.has_embedding_norm
            else ()
        ),
        *(replace(tensor, repeat=Y) for tensor in matrices),
        *norm(f"{block}.self_attn_layer_norm", part, bias=True, repeat=Y),
        *linear(f"{block}.fc1", F, d, part, bias=True, repeat=Y),
        *linear(f"{block}.fc2", d, F, part, bias=True, repeat=Y),
        *norm(f"{block}.final_layer_norm", part, bias=True, repeat=Y),
        *(
            norm(f"{name}.layer_norm", part, bias=True, repeat=ONE)
            if variant.has_final_norm
            else ()
        ),
    ]
    return as_encoder(tensors)


def as_encoder(tensors: list[Tensor] | Tensors) -> Tensors:
    """Tensors of an encoder, whose matrices are used once a text."""
    once = {Role.MULTIPLIED: Role.ONCE, Role.LOOKED_UP: Role.ONCE}
    return tuple(
        replace(t, component=components.ENCODER, role=once.get(t.role, t.role)) for t in tensors
    )


def _convolutions(config: Config, name: str) -> Tensors:
    bands = as_polynomial(size(config, "num_mel_bins", 80))
    part, taps = components.ENCODER, as_polynomial(3)
    return (
        Tensor(f"{name}.conv1.weight", (d, bands, taps), part, Role.ONCE),
        Tensor(f"{name}.conv1.bias", (d,), part, Role.ADDED),
        Tensor(f"{name}.conv2.weight", (d, d, taps), part, Role.ONCE),
        Tensor(f"{name}.conv2.bias", (d,), part, Role.ADDED),
    )


def _longformer(block: str) -> Tensors:
    own = f"{block}.self_attn.longformer_self_attn"
    names = [f"{n}{kind}" for kind in ("", "_global") for n in ("query", "key", "value")]
    part = components.ENCODER
    maps = (linear(f"{own}.{name}", d, d, part, bias=True) for name in names)
    output = linear(f"{block}.self_attn.output", d, d, part, bias=True)
    return (*(tensor for pair in maps for tensor in pair), *output)


def _big_bird(block: str, bias: bool) -> Tensors:
    own, part = f"{block}.self_attn", components.ENCODER
    maps = (linear(f"{own}.self.{n}", d, d, part, bias=bias) for n in ("query", "key", "value"))
    output = linear(f"{own}.output", d, d, part, bias=bias)
    return (*(tensor for pair in maps for tensor in pair), *output)


def _with_class(result: Layout, config: Config, prefix: str, whole: _Whole) -> Layout:
    name = class_name_of(config)
    if not name or name.endswith(WHOLE):
        return result
    body = tuple(t for t in result.tensors if t.component != components.LM_HEAD)
    ties = tuple(pair for pair in result.ties if pair[0].startswith(prefix))
    if name.endswith("ForSequenceClassification") and whole.classes:
        heads = (
            *head("classification_head.dense", d),
            *head("classification_head.out_proj", C),
        )
        symbols = {**result.symbols, "C": number_of_classes(config, whole.classes)}
        return replace(result, tensors=(*body, *heads), symbols=symbols, ties=ties, buffers=())
    if not name.endswith("Model"):
        raise undeclared_class(config)
    return replace(
        result,
        tensors=tuple(replace(t, name=t.name.removeprefix(prefix)) for t in body),
        ties=tuple((a.removeprefix(prefix), b.removeprefix(prefix)) for a, b in ties),
        buffers=(),
    )
