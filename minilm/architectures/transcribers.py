"""Canary, Cohere ASR and streaming Moonshine: a decoder of text that attends to an encoder's frames.

The encoder, a conformer or Moonshine's, runs once a sound; costs are those of a token of text. Names, shapes
and defaults: huggingface/transformers `models/{canary,cohere_asr,moonshine_streaming}`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.bart import as_encoder
from minilm.architectures.building_blocks import (
    Heads,
    L,
    V,
    d,
    f,
    linear,
    lm_head,
    norm,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import Config, flag, layers, number, size, sub_config
from minilm.architectures.fast_conformer import PARAKEET, fast_conformer
from minilm.architectures.seq2seq_kin import cross_attention
from minilm.architectures.task_heads import (
    WITH_ENCODERS,
    UndeclaredClassError,
    class_name_of,
    undeclared_class,
)
from minilm.architectures.vision_tower import Part, in_numbers
from minilm.architectures.waveform import convolution
from minilm.config.validation import LARGEST_DIMENSION
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

T = symbol("T")

_BODY = "model.decoder"


@dataclass(frozen=True)
class _Variant:
    """``sizes`` are vocabulary, width, layers, feed-forward width and context."""

    sizes: tuple[int, int, int, int, int] = (16384, 1024, 8, 4096, 1024)
    head_dim: int | None = None
    kv_heads: int | None = None
    biases: bool = True
    is_gated: bool = False
    tied: bool = False


_VARIANTS = {
    "canary": _Variant(head_dim=128, kv_heads=8, tied=True),
    "cohere_asr": _Variant(),
    "moonshine_streaming": _Variant((32768, 320, 6, 1280, 4096), biases=False, is_gated=True),
}


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family, name = config["model_type"], class_name_of(config)
    if name and not name.endswith((WITH_ENCODERS, "Model")):
        raise undeclared_class(config)
    variant = _VARIANTS[family]
    fields = sub_config(config, "decoder_config") if family == "canary" else config
    vocabulary, width, depth, inner, context = variant.sizes
    sizes = (width, 8, variant.kv_heads, variant.head_dim)
    heads = read_heads(fields, defaults=sizes, rounds=True)
    symbols = {
        "V": size(fields, "vocab_size", vocabulary),
        "T": size(fields, "max_position_embeddings", context),
        "L": layers(fields, "num_hidden_layers", depth),
        "f": size(fields, "intermediate_size", inner),
        **heads.symbols,
    }
    whole = size(config, "vocab_size", vocabulary)
    if whole != symbols["V"]:
        expected = f"decoder_config's {symbols['V']}"
        raise ConfigError("config.json: vocab_size", f"{whole}", expected)
    bare = {"num_hidden_layers": 32, "num_mel_bins": 128} if family == "canary" else {}
    encoder = _ENCODERS[family](sub_config(config, "encoder_config", bare=bare))
    table = Tensor(
        f"{_BODY}.embed_tokens.weight", (V, d), components.TOKEN_EMBEDDING, Role.LOOKED_UP
    )
    tied = flag(config, "tie_word_embeddings", variant.tied)
    result = Layout(
        family,
        (
            table,
            *_decoder(fields, variant, heads),
            *lm_head("proj_out", tied=tied, bias=variant.biases),
            *as_encoder(encoder.tensors),
            *as_encoder(_between(config, encoder)),
        ),
        symbols,
        ties=(("proj_out.weight", table.name),) if tied else (),
        buffers=as_encoder(encoder.buffers),
        attention=(heads.attention(), heads.attention()),  # to the text, and to the sound
        context_length=symbols["T"],
    )
    result = _without_head(result) if name.endswith("Model") else result
    return _as_in_files(result) if family == "cohere_asr" else result


def _without_head(whole: Layout) -> Layout:
    tensors, buffers = (
        tuple(
            replace(t, name=t.name.removeprefix("model."))
            for t in each
            if t.component != components.LM_HEAD
        )
        for each in (whole.tensors, whole.buffers)
    )
    return replace(whole, tensors=tensors, buffers=buffers, ties=())


def _decoder(config: Config, variant: _Variant, heads: Heads) -> Tensors:
    layer, bias = f"{_BODY}.layers.{{i}}", flag(config, "attention_bias", variant.biases)
    out, has_bias = bias and variant.biases, variant.biases
    up, down = components.FEED_FORWARD_UP, components.FEED_FORWARD_DOWN
    rows: Polynomial = f
    if variant.is_gated:
        rows, up = 2 * f, components.FEED_FORWARD_GATE_UP
    before = components.EMBEDDING_NORM
    return (
        *(norm(f"{_BODY}.embedding_layernorm", before, bias=True, repeat=ONE) if has_bias else ()),
        *separate_attention(f"{layer}.self_attn", heads, qkv_bias=bias, output_bias=out),
        *cross_attention(f"{layer}.encoder_attn", heads, qkv_bias=bias, output_bias=out),
        *linear(f"{layer}.mlp.fc1", rows, d, up, bias=True),
        *linear(f"{layer}.mlp.fc2", d, f, down, bias=True),
        *norm(f"{layer}.input_layernorm", components.ATTENTION_NORM, bias=has_bias),
        *norm(f"{layer}.post_attention_layernorm", components.CROSS_ATTENTION, bias=has_bias),
        *norm(f"{layer}.final_layernorm", components.FEED_FORWARD_NORM, bias=has_bias),
        *norm(f"{_BODY}.norm", components.FINAL_NORM, bias=has_bias, repeat=ONE),
    )


def _between(config: Config, encoder: Part) -> Tensors:
    """A map of the frames to the decoder's width, and positions: of the frames, in Cohere's of the text."""
    family = config["model_type"]
    if family == "canary":
        return ()
    fields, part = sub_config(config, "encoder_config"), components.POSITION_EMBEDDING
    is_cohere = family == "cohere_asr"
    heard = size(fields, "hidden_size", 1280 if is_cohere else 320)
    seen = as_polynomial(heard)
    table = Tensor(f"{_BODY}.pos_emb.weight", (T, d if is_cohere else seen), part, Role.LOOKED_UP)
    same = heard == size(config, "hidden_size", 320)
    if same and not is_cohere:
        return (table,)
    maps = linear(f"{_BODY}.proj", d, seen, part, bias=is_cohere, repeat=ONE)
    return (table, *maps)


def _conformer(config: Config, **defaults: Any) -> Part:
    kind = config.get("model_type") or "parakeet_encoder"
    if kind != "parakeet_encoder":
        raise UndeclaredClassError(
            "config.json: encoder_config", shortened(kind), "parakeet_encoder"
        )
    given = {name: value for name, value in config.items() if value is not None}
    return in_numbers(fast_conformer({**defaults, **given}, PARAKEET, "model.encoder."))


def _cohere(config: Config) -> Part:
    return _conformer(
        config, hidden_size=1280, num_hidden_layers=48, intermediate_size=5120, num_mel_bins=128
    )


def _moonshine(config: Config) -> Part:
    """Frames of some milliseconds, two convolutions over them, and layers whose norms have a gain alone."""
    name, part = "model.encoder", components.ENCODER
    heads = read_heads(config, defaults=(320, 8, 8, None), rounds=True)
    rate, length = number(config, "sample_rate", 16000), number(config, "frame_ms", 5.0)
    samples = rate * length / 1000
    if not 0.5 < samples <= LARGEST_DIMENSION:
        got, expected = f"{rate} and {length}", "a frame of a sample or more, and not so many"
        raise ConfigError("config.json: sample_rate, frame_ms", got, expected)
    layer, embedder = f"{name}.layers.{{i}}", f"{name}.embedder"
    bias = flag(config, "attention_bias", False)
    own = f"{layer}.self_attn"
    gains = (f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm")
    tensors = (
        Tensor(f"{embedder}.comp.log_k", (), part, Role.SCALED),
        *linear(f"{embedder}.linear", d, as_polynomial(round(samples)), part, repeat=ONE),
        *convolution(f"{embedder}.conv1", (2 * d, d, 5), part),
        *convolution(f"{embedder}.conv2", (d, 2 * d, 5), part),
        *separate_attention(own, heads, qkv_bias=bias, output_bias=bias),
        *linear(f"{layer}.mlp.fc1", f, d, part, bias=True),
        *linear(f"{layer}.mlp.fc2", d, f, part, bias=True),
        *(Tensor(f"{gain}.gamma", (d,), part, Role.SCALED, L) for gain in gains),
        Tensor(f"{name}.final_norm.gamma", (d,), part, Role.SCALED),
    )
    symbols = {
        "L": layers(config, "num_hidden_layers", 6),
        "f": size(config, "intermediate_size", 1280),
        **heads.symbols,
    }
    return in_numbers(Part(tensors, symbols))


_ENCODERS = {"canary": _conformer, "cohere_asr": _cohere, "moonshine_streaming": _moonshine}

# Cohere's files keep the names of NVIDIA's library.
_IN_FILES = (
    ("proj_out.", "log_softmax.mlp.layer0."),
    ("decoder.proj.", "encoder_decoder_proj."),
    ("decoder.embed_tokens.", "transf_decoder._embedding.token_embedding."),
    ("decoder.embedding_layernorm.", "transf_decoder._embedding.layer_norm."),
    ("decoder.pos_emb.weight", "transf_decoder._embedding.position_embedding.pos_enc"),
    ("decoder.norm.", "transf_decoder._decoder.final_layer_norm."),
    ("decoder.layers.", "transf_decoder._decoder.layers."),
    (".input_layernorm.", ".layer_norm_1."),
    (".post_attention_layernorm.", ".layer_norm_2."),
    (".final_layernorm.", ".layer_norm_3."),
    (".mlp.fc1.", ".third_sub_layer.dense_in."),
    (".mlp.fc2.", ".third_sub_layer.dense_out."),
    ("encoder.subsampling.layers.", "encoder.pre_encode.conv."),
    ("encoder.subsampling.linear.", "encoder.pre_encode.out."),
    (".conv.norm.", ".conv.batch_norm."),
    (".relative_k_proj.", ".linear_pos."),
    (".bias_u", ".pos_bias_u"),
    (".bias_v", ".pos_bias_v"),
)
_MAPS = ("q", "query"), ("k", "key"), ("v", "value"), ("o", "out")


def _as_in_files(whole: Layout) -> Layout:
    def other(name: str) -> str:
        for short, long in _MAPS:
            end = f"{long}_projection." if short == "o" else f"{long}_net."
            heard = f"linear_{'out' if short == 'o' else short}."
            name = name.replace(f"encoder_attn.{short}_proj.", f"second_sub_layer.{end}")
            own = heard if "encoder.layers." in name else f"first_sub_layer.{end}"
            prefix = "self_attn." if "encoder.layers." in name else ""
            name = name.replace(f"self_attn.{short}_proj.", prefix + own)
        for new, old in _IN_FILES:
            name = name.replace(new, old)
        return name

    tensors, buffers = (
        tuple(replace(t, name=other(t.name)) for t in each)
        for each in (whole.tensors, whole.buffers)
    )
    ties = tuple((other(head), other(table)) for head, table in whole.ties)
    return replace(whole, tensors=tensors, buffers=buffers, ties=ties)
