"""BART and its kin whole: an encoder beside the decoders of `bart_decoder.py`, with Whisper's over sound.

Encoder and decoder share the token table. The encoder runs once a text; a token of the decoder attends
to what it left, whose keys and values are computed once. Names, shapes and defaults:
huggingface/transformers `models/TYPE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.bart_decoder import VARIANTS, Variant, attention, decoder_of
from minilm.architectures.building_blocks import E, V, d, linear, norm
from minilm.architectures.config_fields import Config, flag, layers, size
from minilm.architectures.moe import read_experts
from minilm.architectures.mvp_prompts import prompts
from minilm.architectures.speech_heads import over_encoder
from minilm.architectures.task_heads import (
    class_name_of,
    head,
    is_body,
    number_of_classes,
    undeclared_class,
)
from minilm.config.validation import LARGEST_LAYER_COUNT
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

Y, F, P, C = (symbol(letter) for letter in "YFPC")

WHOLE = ("ForConditionalGeneration", "MTModel", "ForTextToText")
# The rows of a classifier by default, and types that answer by two places in a text.
_CLASSIFIERS = {"bart": 3, "bigbird_pegasus": 2, "mbart": 2, "mvp": 2, "plbart": 2}
_ANSWERING = ("bart", "bigbird_pegasus", "led", "mbart", "mvp")


@dataclass(frozen=True)
class _Whole:
    """What a type has around `bart_decoder.py`'s decoder.

    ``positions`` are the field of the encoder's. ``logits_bias`` is a buffer. ``hears`` are the
    convolutions over sound that an encoder has for a token table, and ``more`` what else it has.
    ``renamed`` are parts of names that it has otherwise. ``layers`` are the encoder's by default, 0 for
    the decoder's.
    """

    positions: str = "max_position_embeddings"
    logits_bias: bool = True
    hears: Callable[[Config, str], Tensors] | None = None
    more: Callable[[Config, str], Tensors] | None = None
    renamed: tuple[tuple[str, str], ...] = ()
    sparse: bool = False  # whether every few layers have experts
    layers: int = 0


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
        decoder.attention[0].layers,
        2 * d,
        d,
        d,
        fixed=_frames(config, symbols) if whole.hears else 0,
    )
    result = replace(
        decoder,
        tensors=(
            shared,
            *_own_tables(prefix, tied=bool(ties) or bool(whole.hears)),
            *encoder,
            *others,
            *prompts(config, prefix),
        ),
        symbols=symbols,
        ties=ties,
        buffers=(
            (Tensor("final_logits_bias", (ONE, V), components.LM_HEAD, Role.ADDED),)
            if whole.logits_bias
            else ()
        ),
        attention=(*decoder.attention, cross),
    )
    if family == "marian":  # sinusoidal, and not trained
        result = replace(result, tensors=tuple(map(_frozen_positions, result.tensors)))
    result = _renamed(result, whole)
    if whole.sparse:
        result = _with_experts(result, config)
    return _with_class(result, config, prefix)


def _frozen_positions(tensor: Tensor) -> Tensor:
    return replace(tensor, frozen=tensor.name.endswith("embed_positions.weight"))


def _with_experts(layout: Layout, config: Config) -> Layout:
    """NLLB's: two experts a token in every few layers, under the names of the feed-forward."""
    steps = {name: size(config, f"{name}_sparse_step", 4) for name in ("encoder", "decoder")}
    depths = {"encoder": layout.symbols["Y"], "decoder": layout.symbols["L"]}
    sparse = {
        name: [i for i in range(depth) if (i + 1) % steps[name] == 0]
        for name, depth in depths.items()
    }
    width = {"num_experts_per_tok": 2, "moe_intermediate_size": 1}
    read = read_experts(
        {**config, **width},
        layers=max(1, sum(map(len, sparse.values()))),
        defaults=(128, 2, 1),
    )
    tensors: list[Tensor] = []
    for tensor in layout.tensors:
        stack = "encoder" if ".encoder." in tensor.name else "decoder"
        if ".ffn.fc" not in tensor.name or not sparse[stack]:
            tensors.append(tensor)
            continue
        dense = [i for i in range(depths[stack]) if (i + 1) % steps[stack]]
        if dense:
            tensors.append(replace(tensor, repeat=as_polynomial(len(dense)), layers=dense))
        many, at = as_polynomial(len(sparse[stack])), sparse[stack]
        name = tensor.name.replace(".ffn.", ".ffn.experts.expert_{e}.")
        own = replace(tensor, name=name, repeat=many, layers=at, experts=E, routed=True)
        tensors.append(own)
        if tensor.name.endswith("fc1.weight"):
            router = tensor.name.replace("fc1.weight", "router.classifier")
            bias = flag(config, "router_bias", False)
            tensors += linear(router, E, d, components.ROUTER, bias=bias, repeat=many, layers=at)
    symbols = {**layout.symbols, "E": read["E"], "e": read["e"]}
    return replace(layout, tensors=tuple(tensors), symbols=symbols)


def _renamed(layout: Layout, whole: _Whole) -> Layout:
    def other(name: str) -> str:
        for old, new in whole.renamed:
            name = name.replace(old, new)
        return name

    if not whole.renamed:
        return layout
    tensors = tuple(replace(tensor, name=other(tensor.name)) for tensor in layout.tensors)
    ties = tuple((other(head), other(table)) for head, table in layout.ties)
    return replace(layout, tensors=tensors, ties=ties)


def _frames(config: Config, symbols: Mapping[str, int]) -> int:
    """What the convolutions leave of the longest sound; each of Speech2Text's halves it."""
    if "P" in symbols:
        return symbols["P"]
    halvings = len(_kernels(config))
    return max(1, size(config, "max_source_positions", 6000) >> halvings)


def _positions(whole: _Whole, variant: Variant) -> int:
    return {"max_source_positions": 1500, "max_encoder_position_embeddings": 16384}.get(
        whole.positions, variant.context
    )


def _with_encoder(tensor: Tensor) -> Tensor:
    """Queries and outputs of cross-attention are a token's, keys and values the encoder's."""
    is_cross = tensor.component == components.CROSS_ATTENTION and tensor.role is Role.ONCE
    is_own = ".q_proj." in tensor.name or ".out_proj." in tensor.name
    return replace(tensor, role=Role.MULTIPLIED) if is_cross and is_own else tensor


def _own_tables(prefix: str, *, tied: bool) -> Tensors:
    """Those of encoder and decoder where they are not the one that both share."""
    part = components.TOKEN_EMBEDDING
    names = () if tied else ("encoder", "decoder")
    return tuple(
        Tensor(f"{prefix}{name}.embed_tokens.weight", (V, d), part, Role.LOOKED_UP)
        for name in names
    )


def _ties(decoder: Layout, prefix: str, shared: str, whole: _Whole) -> tuple[tuple[str, str], ...]:
    if whole.hears or not decoder.ties:
        return decoder.ties
    names = (f"{prefix}{part}.embed_tokens.weight" for part in ("encoder", "decoder"))
    return (*((head, shared) for head, _ in decoder.ties), *((name, shared) for name in names))


def _encoder(config: Config, name: str, variant: Variant, whole: _Whole) -> Tensors:
    block = f"{name}.layers.{{i}}"
    bias = variant.has_bias
    if config["model_type"] == "bigbird_pegasus":
        bias = flag(config, "use_bias", False)
    if config["model_type"] == "led":
        matrices = _longformer(block)
    elif config["model_type"] == "bigbird_pegasus":
        matrices = _big_bird(block, bias)
    else:
        matrices = attention(f"{block}.self_attn", bias, bias and variant.has_key_bias)
    part = components.ENCODER
    rows: Polynomial = P + (variant.positions or 0)
    tensors = [
        *(whole.hears(config, name) if whole.hears else ()),
        *(whole.more(config, name) if whole.more else ()),
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


def _with_class(result: Layout, config: Config, prefix: str) -> Layout:
    name = class_name_of(config)
    if not name or name.endswith(WHOLE):
        return result
    body = tuple(t for t in result.tensors if t.component != components.LM_HEAD)
    ties = tuple(pair for pair in result.ties if pair[0].startswith(prefix))
    if name.endswith("ForAudioClassification") and result.family == "whisper":
        return over_encoder(result, config)
    if name.endswith("ForSequenceClassification") and result.family in _CLASSIFIERS:
        heads = (*head("classification_head.dense", d), *head("classification_head.out_proj", C))
        symbols = {**result.symbols, "C": number_of_classes(config, _CLASSIFIERS[result.family])}
        return replace(result, tensors=(*body, *heads), symbols=symbols, ties=ties, buffers=())
    if name.endswith("ForQuestionAnswering") and result.family in _ANSWERING:
        heads = head("qa_outputs", ONE + ONE, role=Role.MULTIPLIED)
        return replace(result, tensors=(*body, *heads), ties=ties, buffers=())
    if not is_body(name):
        raise undeclared_class(config)
    return replace(
        result,
        tensors=tuple(replace(t, name=t.name.removeprefix(prefix)) for t in body),
        ties=tuple((a.removeprefix(prefix), b.removeprefix(prefix)) for a, b in ties),
        buffers=(),
    )


def _strided_convolutions(config: Config, name: str) -> Tensors:
    """Each with twice the channels that its gate leaves."""
    channels, width = size(config, "conv_channels", 1024), size(config, "d_model", 256)
    inputs = size(config, "input_feat_per_channel", 80) * size(config, "input_channels", 1)
    kernels = _kernels(config)
    tensors: list[Tensor] = []
    for number, kernel in enumerate(kernels):
        taps = size({"conv_kernel_sizes": kernel}, "conv_kernel_sizes")
        last = number == len(kernels) - 1
        rows, columns = 2 * width if last else channels, inputs if number == 0 else channels // 2
        shape = tuple(map(as_polynomial, (rows, columns, taps)))
        layer = f"{name}.conv.conv_layers.{number}"
        tensors.append(Tensor(f"{layer}.weight", shape, components.ENCODER, Role.ONCE))
        tensors.append(Tensor(f"{layer}.bias", shape[:1], components.ENCODER, Role.ADDED))
    return tuple(tensors)


def _kernels(config: Config) -> Sequence[Any]:
    kernels = config.get("conv_kernel_sizes", [5, 5])
    if not isinstance(kernels, (list, tuple)) or not 0 < len(kernels) <= LARGEST_LAYER_COUNT:
        raise ConfigError("config.json: conv_kernel_sizes", shortened(kernels), "a list of sizes")
    return kernels


def _global_tokens(config: Config, name: str) -> Tensors:
    rows, part = as_polynomial(size(config, "num_global_tokens", 32)), components.ENCODER
    gain = f"{name}.layers.{{i}}.global_self_attn_layer_norm"
    table = Tensor(f"{name}.embed_global.weight", (rows, d), part, Role.ONCE)
    return (table, *norm(gain, part, bias=True, repeat=Y))


_SEAMLESS = _Whole(
    logits_bias=False,
    renamed=(
        ("model.shared", "shared"),
        ("model.", "text_"),
        (".fc", ".ffn.fc"),
        ("final_layer_norm", "ffn_layer_norm"),
        ("encoder_attn", "cross_attention"),
    ),
)
_WHOLES = {
    "blenderbot": _Whole(layers=2),
    "led": _Whole("max_encoder_position_embeddings"),
    "m2m_100": _Whole(logits_bias=False),
    "nllb-moe": _Whole(
        logits_bias=False,
        renamed=(
            (".fc", ".ffn.fc"),
            ("final_layer_norm", "ff_layer_norm"),
            ("encoder_attn", "cross_attention"),
        ),
        sparse=True,
    ),
    "pegasus_x": _Whole(logits_bias=False, more=_global_tokens),
    "seamless_m4t": _SEAMLESS,
    "seamless_m4t_v2": _SEAMLESS,
    "speech_to_text": _Whole(logits_bias=False, hears=_strided_convolutions, layers=12),
    "whisper": _Whole("max_source_positions", logits_bias=False, hears=_convolutions),
}
_BART = VARIANTS["bart"]
_M2M100 = replace(
    VARIANTS["xglm"],
    vocabulary=128112,
    layers=12,
    context=1024,
    has_cross_attention=True,
    body="model.decoder",
    fields=_BART.fields,
)
_SEAMLESS_DECODER = replace(
    _M2M100,
    vocabulary=256102,
    layers=24,
    feed_forward=8192,
    fields=("hidden_size", *_BART.fields[1:]),
)
_MORE = {
    "led": replace(
        _BART,
        positions=0,
        body="led.decoder",
        fields=(*_BART.fields[:4], "max_decoder_position_embeddings"),
    ),
    "m2m_100": _M2M100,
    "nllb-moe": _M2M100,
    "pegasus_x": replace(_M2M100, vocabulary=96103, layers=16, context=16384, has_bias=False),
    "seamless_m4t": _SEAMLESS_DECODER,
    "seamless_m4t_v2": replace(_SEAMLESS_DECODER, context=4096),
    "speech_to_text": replace(
        _M2M100,
        vocabulary=10000,
        layers=6,
        heads=(256, 4, None, None),
        feed_forward=2048,
        fields=(*_BART.fields[:4], "max_target_positions"),
    ),
}
