"""Conformers over speech: wav2vec 2.0's over a waveform, and wav2vec 2.0 BERT over a spectrogram.

A layer has two feed-forwards, attention and a convolution. Costs are those of a frame, without what relative
positions and an adapter cost. Names, shapes and defaults: huggingface/transformers
`models/{wav2vec2_conformer,wav2vec2_bert}`.
"""

from __future__ import annotations

from dataclasses import replace
from reprlib import repr as shortened

from minilm.architectures.building_blocks import L, d, f, h, k, norm
from minilm.architectures.config_fields import Config, flag, layers, size, sizes, whole_number
from minilm.architectures.encoder_layers import encoder_layer
from minilm.architectures.speech_heads import (
    CLASSES,
    WITHOUT_PRETRAINING,
    adapter,
    adapter_width,
    with_speech_head,
)
from minilm.architectures.task_heads import head
from minilm.architectures.vision_tower import running_statistics
from minilm.architectures.wav2vec2 import encoder_symbols, speech_heads
from minilm.architectures.waveform import (
    WIDTHS,
    convolution,
    feature_extractor,
    feature_projection,
    mask,
    positional_convolution,
    weight_normed,
)
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, ZERO, Polynomial, as_polynomial

_LAYER = (
    "self_attn.linear_q self_attn.linear_k self_attn.linear_v self_attn.linear_out "
    "self_attn_layer_norm ffn1.intermediate_dense ffn1.output_dense ffn1_layer_norm"
)
_SECOND = "- - - - final_layer_norm ffn2.intermediate_dense ffn2.output_dense ffn2_layer_norm"
_POSITIONS = ("relative", "rotary", "relative_key")


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    if config["model_type"] == "wav2vec2-bert":
        return _over_spectrogram(config)
    prefix, heads = "wav2vec2_conformer.", speech_heads(config)
    encoder, part = f"{prefix}encoder", components.CONVOLUTION_MODULE
    block = f"{encoder}.layers.{{i}}"
    gain = f"{block}.conv_module.batch_norm"
    tensors = (
        *mask(config, prefix),
        *feature_extractor(config, prefix),
        *feature_projection(sizes(config, "conv_dim", WIDTHS)[-1], prefix),
        *weight_normed(positional_convolution(config, f"{encoder}.pos_conv_embed.conv")),
        *norm(f"{encoder}.layer_norm", components.FINAL_NORM, bias=True, repeat=ONE),
        *_layers(config, block, "relative"),
        *norm(gain, part, bias=True),
        *adapter(config, prefix, heads.symbols["d"]),
    )
    result = Layout(
        config["model_type"],
        tensors,
        encoder_symbols(config, heads),
        buffers=(
            *running_statistics(gain, d, part, L),
            *_frequencies(config, f"{encoder}.embed_positions", heads.symbols["k"]),
        ),
        attention=(replace(heads.attention(), cache=ZERO),),
    )
    return with_speech_head(result, config, prefix, CLASSES, vocabulary=None, adapts=True)


def _over_spectrogram(config: Config) -> Layout:
    prefix, heads = "wav2vec2_bert.", speech_heads(config, 1024, 16)
    block = f"{prefix}encoder.layers.{{i}}"
    part = components.CONVOLUTION_MODULE
    tensors = (
        *feature_projection(size(config, "feature_projection_input_dim", 160), prefix),
        *mask(config, prefix),
        *_layers(config, block, "relative_key"),
        *norm(f"{block}.conv_module.depthwise_layer_norm", part, bias=True),
        *_attending_adapter(config, prefix, heads.symbols["d"]),
        *(
            _feed_forward(f"{prefix}intermediate_ffn", d, Role.MULTIPLIED, ONE)
            if flag(config, "use_intermediate_ffn_before_adapter", False)
            else ()
        ),
    )
    result = Layout(
        config["model_type"],
        tensors,
        encoder_symbols(config, heads, 24, 4096),
        attention=(replace(heads.attention(), cache=ZERO),),
    )
    classes = WITHOUT_PRETRAINING
    return with_speech_head(
        result, config, prefix, classes, projection=768, vocabulary=None, adapts=True
    )


def _layers(config: Config, block: str, positions: str) -> Tensors:
    conv, part = f"{block}.conv_module", components.CONVOLUTION_MODULE
    taps = size(config, "conv_depthwise_kernel_size", 31)
    if taps % 2 == 0:
        raise ConfigError("config.json: conv_depthwise_kernel_size", f"{taps}", "an odd number")

    def maps(name: str, *shape: Polynomial | int) -> Tensors:
        return convolution(f"{conv}.{name}", shape, part, bias=False, repeat=L)

    return (
        *encoder_layer(block, _LAYER),
        *_positions(config, f"{block}.self_attn", positions),
        *norm(f"{conv}.layer_norm", part, bias=True),
        *maps("pointwise_conv1", 2 * d, d, 1),
        *maps("depthwise_conv", d, 1, taps),
        *maps("pointwise_conv2", d, d, 1),
        *encoder_layer(block, _SECOND),
    )


def _positions(config: Config, name: str, default: str) -> Tensors:
    kind, part = config.get("position_embeddings_type", default), components.POSITION_EMBEDDING
    if kind is not None and not isinstance(kind, str):
        expected = f"null or one of {', '.join(_POSITIONS)}"
        raise ConfigError("config.json: position_embeddings_type", shortened(kind), expected)
    if kind == "relative":  # positions are mapped once a sound
        return (
            Tensor(f"{name}.linear_pos.weight", (d, d), part, Role.ONCE, L),
            *(Tensor(f"{name}.pos_bias_{n}", (h, k), part, Role.ADDED, L) for n in "uv"),
        )
    if kind == "relative_key" and default == kind:
        sides = (("left", 64), ("right", 8))
        seen = (whole_number(config, f"{side}_max_position_embeddings", n) for side, n in sides)
        shape = (as_polynomial(sum(seen) + 1), k)
        return (Tensor(f"{name}.distance_embedding.weight", shape, part, Role.LOOKED_UP, L),)
    return ()


def _frequencies(config: Config, name: str, width: int) -> Tensors:
    """Of rotary positions, which are in the files."""
    if config.get("position_embeddings_type") != "rotary":
        return ()
    pairs = as_polynomial((width + 1) // 2)
    return (Tensor(f"{name}.inv_freq", (pairs,), components.POSITION_EMBEDDING, Role.ONCE),)


def _attending_adapter(config: Config, prefix: str, width: int) -> Tensors:
    """Layers of attention and feed-forward, each behind a convolution that leaves out frames."""
    if not flag(config, "add_adapter", False):
        return ()
    depth = layers(config, "num_adapter_layers", 1)
    wide, maps = adapter_width(config, prefix, width)
    many, part = as_polynomial(depth), components.ADAPTER
    block = f"{prefix}adapter.layers.{{i}}"
    shape = (2 * wide, wide, size(config, "adapter_kernel_size", 3))
    norms = ("residual_layer_norm", "self_attn_layer_norm", "ffn_layer_norm")
    attention = (
        tensor
        for name in ("q", "k", "v", "out")
        for tensor in head(f"{block}.self_attn.linear_{name}", wide, inputs=wide, component=part)
    )
    return (
        *maps,
        *(t for n in norms for t in norm(f"{block}.{n}", part, width=wide, bias=True, repeat=many)),
        *(
            tensor
            for name in ("residual_conv", "self_attn_conv")
            for tensor in convolution(f"{block}.{name}", shape, part, role=Role.ONCE, repeat=many)
        ),
        *(replace(tensor, repeat=many) for tensor in attention),
        *_feed_forward(f"{block}.ffn", wide, Role.ONCE, many, part),
    )


def _feed_forward(
    name: str,
    width: Polynomial,
    role: Role,
    repeat: Polynomial,
    component: str = components.FEED_FORWARD_UP,
) -> Tensors:
    maps = (
        *head(f"{name}.intermediate_dense", f, inputs=width, component=component, role=role),
        *head(f"{name}.output_dense", width, inputs=f, component=component, role=role),
    )
    return tuple(replace(tensor, repeat=repeat) for tensor in maps)
