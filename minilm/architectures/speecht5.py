"""SpeechT5: one encoder-decoder, with what turns text or speech into its frames and back around it.

The encoder runs once; costs are those of a step of the decoder, a letter or, before what smooths them, some
frames. Its vocoder makes a waveform of them. Names, shapes and defaults: huggingface/transformers
`models/speecht5`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minilm.architectures.bart import as_encoder
from minilm.architectures.building_blocks import (
    V,
    d,
    equal_heads,
    feed_forward,
    linear,
    norm,
    separate_attention,
)
from minilm.architectures.config_fields import (
    Config,
    few,
    flag,
    layers,
    listed,
    size,
    sizes,
    whole_number,
)
from minilm.architectures.encoder_layers import encoder_layer
from minilm.architectures.seq2seq_kin import cross_attention
from minilm.architectures.task_heads import class_name_of, undeclared_class
from minilm.architectures.vision_tower import (
    Part,
    heard,
    in_numbers,
    matrix,
    once,
    running_statistics,
)
from minilm.architectures.wav2vec2 import LAYER
from minilm.architectures.waveform import (
    WIDTHS,
    feature_extractor,
    feature_projection,
    mask,
    positional_convolution,
    weight_normed,
)
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, as_polynomial


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    if config["model_type"] == "speecht5_hifigan":
        return _vocoder(config)
    name = class_name_of(config)
    is_body = not name or name.endswith("Model")
    prefix = "" if is_body else "speecht5."
    heard, _, said = ("" if is_body else name.rpartition("For")[2]).partition("To")
    kinds = ("", "Speech", "Text")
    if not is_body and (heard not in kinds[1:] or said not in kinds[1:] or heard == said == "Text"):
        raise undeclared_class(config)
    heads = equal_heads(config, (768, 12, None, None), heads="decoder_attention_heads")
    symbols = {
        "V": size(config, "vocab_size", 81),
        "L": layers(config, "decoder_layers", 6),
        "f": size(config, "decoder_ffn_dim", 3072),
        **heads.symbols,
    }
    encoder = _encoder(config, f"{prefix}encoder", heard)
    table, out = f"{prefix}decoder.prenet.embed_tokens", "text_decoder_postnet.lm_head"
    tied = said == "Text" and flag(config, "tie_word_embeddings", True)
    before: Tensors = ()
    after: Tensors = ()
    if said == "Text":
        before = (_table(table),)
        after = () if tied else linear(out, V, d, components.LM_HEAD, repeat=ONE)
    elif said:
        before = _frames_in(config, f"{prefix}decoder.prenet")
        after = _frames_out(config)
    block = f"{prefix}decoder.wrapped_decoder.layers.{{i}}"
    return Layout(
        "speecht5",
        (
            *before,
            *_decoder(block, heads),
            *after,
            *as_encoder(encoder),
        ),
        symbols,
        ties=((f"{out}.weight", f"{table}.weight"),) if tied else (),
        buffers=_smoothed(config) if said == "Speech" else (),
        attention=(heads.attention(), heads.attention()),
        context_length=size(config, "max_text_positions", 450) if said == "Text" else 0,
    )


def _table(name: str) -> Tensor:
    return Tensor(f"{name}.weight", (V, d), components.TOKEN_EMBEDDING, Role.LOOKED_UP)


def _encoder(config: Config, name: str, heard: str) -> Tensors:
    """With its own width of the feed-forward, so without letters."""
    body, prenet = f"{name}.wrapped_encoder", f"{name}.prenet."
    heads = equal_heads(config, (768, 12, None, None), heads="encoder_attention_heads")
    rows = 2 * size(config, "encoder_max_relative_position", 160)
    before: Tensors = ()
    if heard == "Text":
        alpha = Tensor(f"{prenet}encode_positions.alpha", (), components.ENCODER, Role.SCALED)
        before = (_table(f"{prenet}embed_tokens"), alpha)
    elif heard:
        convolved = (
            replace(t, name=t.name.replace("feature_extractor", "feature_encoder"))
            for t in feature_extractor(config, prenet)
        )
        before = (
            *mask(config, prenet),
            *convolved,
            *feature_projection(sizes(config, "conv_dim", WIDTHS)[-1], prenet),
            *weight_normed(positional_convolution(config, f"{prenet}pos_conv_embed.conv")),
        )
    positions = Tensor(
        f"{body}.embed_positions.pe_k.weight",
        tuple(map(as_polynomial, (rows, heads.symbols["k"]))),
        components.ENCODER,
        Role.LOOKED_UP,
    )
    tensors = (
        *before,
        *norm(f"{body}.layer_norm", components.ENCODER, bias=True, repeat=ONE),
        *encoder_layer(f"{body}.layers.{{i}}", LAYER),
        positions,
    )
    symbols = {
        "V": size(config, "vocab_size", 81),
        "L": layers(config, "encoder_layers", 12),
        "f": size(config, "encoder_ffn_dim", 3072),
        **heads.symbols,
    }
    return in_numbers(Part(tensors, symbols)).tensors


def _decoder(block: str, heads: Any) -> Tensors:
    biases: dict[str, Any] = {"qkv_bias": True, "output_bias": True, "output": "out_proj"}
    forward = f"{block}.feed_forward"
    return (
        *separate_attention(f"{block}.self_attn", heads, **biases),
        *norm(f"{block}.self_attn_layer_norm", components.ATTENTION_OUTPUT_NORM, bias=True),
        *cross_attention(f"{block}.encoder_attn", heads, **biases),
        *norm(f"{block}.encoder_attn_layer_norm", components.CROSS_ATTENTION, bias=True),
        *feed_forward(f"{forward}.intermediate_dense", f"{forward}.output_dense", bias=True),
        *norm(f"{block}.final_layer_norm", components.FEED_FORWARD_OUTPUT_NORM, bias=True),
    )


def _frames_in(config: Config, name: str) -> Tensors:
    """The last frame and who speaks, mapped to the decoder's width."""
    inner = size(config, "speech_decoder_prenet_units", 256)
    bands, part = size(config, "num_mel_bins", 80), components.EMBEDDING_PROJECTION
    field = "speech_decoder_prenet_layers"
    depth = few(field, whole_number(config, field, 2))
    maps: list[Tensor] = []
    for i in range(depth):
        inputs = as_polynomial(inner if i else bands)
        maps += _map(f"{name}.layers.{i}", inner, inputs, part)
    speaker = d + size(config, "speaker_embedding_dim", 512)
    return (
        *maps,
        *linear(f"{name}.final_layer", d, as_polynomial(inner), part, bias=True, repeat=ONE),
        Tensor(f"{name}.encode_positions.alpha", (), components.POSITION_EMBEDDING, Role.SCALED),
        *linear(f"{name}.speaker_embeds_layer", d, speaker, part, bias=True, repeat=ONE),
    )


def _map(name: str, outputs: int, inputs: Any, part: str) -> Tensors:
    return linear(name, as_polynomial(outputs), inputs, part, bias=True, repeat=ONE)


def _frames_out(config: Config) -> Tensors:
    """Some frames, whether they are the last, and convolutions that smooth them all."""
    name, part = "speech_decoder_postnet", components.LM_HEAD
    bands, many = size(config, "num_mel_bins", 80), size(config, "reduction_factor", 2)
    taps = size(config, "speech_decoder_postnet_kernel", 5)
    smooth: list[Tensor] = []
    for i, (inputs, outputs) in enumerate(_smoothing(config)):
        layer = f"{name}.layers.{i}"
        smooth.append(once(f"{layer}.conv.weight", (outputs, inputs, taps), component=part))
        smooth += norm(
            f"{layer}.batch_norm", part, width=as_polynomial(outputs), bias=True, repeat=ONE
        )
    return (
        *_map(f"{name}.feat_out", bands * many, d, part),
        *_map(f"{name}.prob_out", many, d, part),
        *smooth,
    )


def _smoothing(config: Config) -> list[tuple[int, int]]:
    """Inputs and outputs of each convolution."""
    name = "speech_decoder_postnet_layers"
    depth = few(name, whole_number(config, name, 5))
    bands, inner = (
        size(config, "num_mel_bins", 80),
        size(config, "speech_decoder_postnet_units", 256),
    )
    return [(inner if i else bands, inner if i < depth - 1 else bands) for i in range(depth)]


def _smoothed(config: Config) -> Tensors:
    return tuple(
        buffer
        for i, (_, outputs) in enumerate(_smoothing(config))
        for buffer in running_statistics(
            f"speech_decoder_postnet.layers.{i}.batch_norm", outputs, components.LM_HEAD
        )
    )


def _vocoder(config: Config) -> Layout:
    """HiFi-GAN: each stage has more samples, fewer channels, and residual blocks of several widths."""
    first, bands = size(config, "upsample_initial_channel", 512), size(config, "model_in_dim", 80)
    rates = sizes(config, "upsample_rates", (4, 4, 4, 4))
    wide = sizes(config, "upsample_kernel_sizes", (8, 8, 8, 8))
    taps = sizes(config, "resblock_kernel_sizes", (3, 7, 11))
    name = "resblock_dilation_sizes"
    dilations = [sizes({name: each}, name, ()) for each in listed(config, name, [[1, 3, 5]] * 3)]
    tensors = [*matrix("conv_pre", (first, bands, 7))]
    channels = first
    for i, (_, width) in enumerate(zip(rates, wide, strict=False)):
        if first < 2 ** (i + 1):
            expected = f"at least {2 ** (i + 1)}"
            raise ConfigError("config.json: upsample_initial_channel", f"{first}", expected)
        inputs, channels = first // 2**i, first // 2 ** (i + 1)
        weight, _ = matrix(f"upsampler.{i}", (inputs, channels, width))
        tensors += [weight, once(f"upsampler.{i}.bias", (channels,), Role.ADDED)]
        for j, (tap, each) in enumerate(zip(taps, dilations, strict=False)):
            block = f"resblocks.{i * min(len(taps), len(dilations)) + j}"
            for kind in ("convs1", "convs2"):
                for n in range(len(each)):
                    tensors += matrix(f"{block}.{kind}.{n}", (channels, channels, tap))
    tensors += matrix("conv_post", (1, channels, 7))
    means = tuple(once(name, (bands,)) for name in ("mean", "scale"))
    own = heard(Part(tuple(tensors), buffers=means))
    return Layout(config["model_type"], own.tensors, {}, buffers=own.buffers)
