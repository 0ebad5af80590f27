"""Phi-4-multimodal as transformers stores it: Phi-3's language model, SigLIP, and a conformer for sound.

Pictures and sounds are used once, not once a token. Names, shapes and defaults:
huggingface/transformers `models/phi4_multimodal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import d, equal_heads
from minilm.architectures.config_fields import flag, layers, size, sub_config
from minilm.architectures.phi3 import layout as text_layout
from minilm.architectures.vision_tower import (
    W,
    Width,
    matrix,
    once,
    siglip_tower,
    vector,
    vision_symbols,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import as_polynomial, symbol

a, z = symbol("a"), symbol("z")

_TEXT = {"vocab_size": 200064, "num_key_value_heads": 8, "max_position_embeddings": 131072}
_EMBED = "model.embed_tokens_extend"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Phi4MultimodalForCausalLM for a config.json."""
    text = text_layout({**_TEXT, **config, "model_type": "phi3"})
    vision, audio = sub_config(config, "vision_config"), sub_config(config, "audio_config")
    patch = size(vision, "patch_size", 14)
    symbols = {
        **vision_symbols(vision, width=1152, depth=27, inner=4304, image=448, patch=14),
        "a": size(audio, "hidden_size", 1024),
        "z": layers(audio, "num_blocks", 24),
    }
    equal_heads(vision, (1152, 16, None, None))  # which its pooling needs
    image = f"{_EMBED}.image_embed"
    tower = siglip_tower(
        f"{image}.img_processor",
        channels=size(vision, "num_channels", 3),
        patch=patch,
        has_pooling_head=True,
    )
    tensors = (
        *text.tensors,
        once(f"{image}.global_img_feature_extensor", (1, 1, W)),
        once(f"{image}.sub_img_feature_extensor", (1, 1, 1, W)),
        *tower,
        *matrix(f"{image}.img_projection_up", (d, W)),
        *matrix(f"{image}.img_projection_down", (d, d)),
        *_audio(audio),
    )
    mean = f"{_EMBED}.audio_embed.encoder.encoder_embedding.global_"
    bands = as_polynomial(size(audio, "input_size", 80))
    part = components.AUDIO
    return replace(
        text,
        family="phi4_multimodal",
        tensors=tensors,
        symbols={**text.symbols, **symbols},
        buffers=tuple(
            Tensor(mean + name, (bands,), part, Role.ONCE) for name in ("mean", "invstd")
        ),
    )


def _audio(config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Convolutions over time and frequency, a conformer, and projections to the model's width."""
    prefix = f"{_EMBED}.audio_embed"
    encoder = f"{prefix}.encoder"
    channels = size(config, "nemo_conv_channels", 1024)
    steps = max(1, size(config, "time_reduction", 8).bit_length() - 1)
    bands = size(config, "input_size", 80)
    tensors = [*matrix(f"{encoder}.embed.conv.0", (channels, 1, 3, 3))]
    for step in range(steps - 1):
        convolution = f"{encoder}.embed.conv"
        tensors += matrix(f"{convolution}.{3 * step + 2}", (channels, 1, 3, 3))
        tensors += matrix(f"{convolution}.{3 * step + 3}", (channels, channels, 1, 1))
    for _ in range(steps):
        bands = (bands - 1) // 2 + 1
    distances = size(config, "bias_max_distance", 1000)
    distances *= 1 if flag(config, "bias_symmetric", False) else 2
    heads = size(config, "num_attention_heads", 16)
    inputs = size(config, "downsample_rate", 1) * a
    tensors += [
        *matrix(f"{encoder}.embed.out", (a, channels * bands)),
        once(f"{encoder}.relative_attention_bias_layer.bias_values.weight", (distances, heads)),
        *_conformer(f"{encoder}.encoders.{{i}}", config),
    ]
    for kind in ("speech", "vision_speech"):
        tensors += matrix(f"{prefix}.up_proj_for_{kind}", (d, inputs))
        tensors += matrix(f"{prefix}.down_proj_for_{kind}", (d, d))
    return tuple(replace(each, component=components.AUDIO) for each in tensors)


def _conformer(block: str, config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    inner = size(config, "intermediate_size", 1536)
    outputs = size(config, "ext_pw_out_channel", 1024)
    depth = size(config, "depthwise_multiplier", 1) * a
    separable = size(config, "depthwise_separable_out_channel", 1024)
    kernel = size(config, "kernel_size", 3)
    width, heads = size(config, "hidden_size", 1024), size(config, "num_attention_heads", 16)
    queries = heads * size(config, "head_dim", max(1, width // heads))
    inside: Width = a if queries == width else queries
    convolution = f"{block}.conv"
    return (
        *_feed_forward(f"{block}.feed_forward_in", inner),
        *(
            tensor
            for name in ("q_proj", "k_proj", "v_proj")
            for tensor in matrix(f"{block}.self_attn.{name}", (inside, a), z)
        ),
        *matrix(f"{block}.self_attn.o_proj", (a, inside), z),
        *vector(f"{convolution}.layer_norm", a, z),
        once(f"{convolution}.glu.b1", (1, outputs, 1), Role.ADDED, z),
        once(f"{convolution}.glu.b2", (1, outputs, 1), Role.ADDED, z),
        *matrix(f"{convolution}.glu.ext_pw_conv_1d", (2 * outputs, a, 1), z),
        *matrix(f"{convolution}.dw_sep_conv_1d.dw_conv", (depth, 1, kernel), z),
        *matrix(f"{convolution}.dw_sep_conv_1d.pw_conv", (separable, depth, 1), z),
        *matrix(f"{convolution}.ext_pw_conv_1d", (outputs, a, 1), z),
        *_feed_forward(f"{block}.feed_forward_out", inner),
        *vector(f"{block}.layer_norm_att", a, z),
        *vector(f"{block}.layer_norm", a, z),
    )


def _feed_forward(prefix: str, inner: int) -> tuple[Tensor, ...]:
    return (
        *vector(f"{prefix}.layer_norm", a, z),
        *matrix(f"{prefix}.gate_up_proj", (2 * inner, a), z),
        *matrix(f"{prefix}.down_proj", (a, inner), z),
    )
