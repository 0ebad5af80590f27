"""SEW and SEW-D: wav2vec 2.0 whose encoder sees squeezed frames, with its own layers or DeBERTa's.

A token of the encoder stands for `squeeze_factor` frames. Names, shapes and defaults:
huggingface/transformers `models/{sew,sew_d}`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.building_blocks import d, linear, norm
from minilm.architectures.config_fields import Config, size, sizes
from minilm.architectures.deberta import deberta_v2
from minilm.architectures.encoder_layers import encoder_layer
from minilm.architectures.speech_heads import WITHOUT_PRETRAINING, with_speech_head
from minilm.architectures.wav2vec2 import LAYER, encoder_symbols, speech_heads
from minilm.architectures.waveform import (
    feature_extractor,
    mask,
    positional_convolution,
    weight_normed,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensors
from minilm.ledger.symbols import ONE, ZERO, as_polynomial

_WIDTHS = (64, *(128,) * 4, *(256,) * 4, *(512,) * 4)
_TAPS = (10, 3, 1, 3, 1, 3, 1, 3, 1, 2, 1, 2, 1)
_STRIDES = (5, *(2, 1) * 6)
_DEBERTA_LAYER = (
    "attention.self.query_proj attention.self.key_proj attention.self.value_proj "
    "attention.output.dense attention.output.LayerNorm intermediate.dense output.dense "
    "output.LayerNorm"
)
_DISENTANGLED = {
    "relative_attention": True,
    "share_att_key": True,
    "position_buckets": 256,
    "pos_att_type": ("p2c", "c2p"),
    "norm_rel_ebd": "layer_norm",
}


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family = config["model_type"]
    prefix, heads = f"{family.replace('-', '_')}.", speech_heads(config)
    channels, width = sizes(config, "conv_dim", _WIDTHS)[-1], heads.symbols["d"]
    squeezed, inputs = size(config, "squeeze_factor", 2), as_polynomial(channels)
    encoder, part = f"{prefix}encoder", components.EMBEDDING_PROJECTION
    layers = _disentangled if family == "sew-d" else _plain
    before = (
        *feature_extractor(config, prefix, widths=_WIDTHS, taps=_TAPS, strides=_STRIDES),
        *(
            linear(f"{prefix}feature_projection", d, inputs, part, bias=True, repeat=ONE)
            if channels != width
            else ()
        ),
    )
    tensors = (
        *mask(config, prefix),
        *(replace(tensor, runs=tensor.runs * squeezed) for tensor in before),
        *norm(
            f"{prefix}layer_norm", components.EMBEDDING_NORM, width=inputs, bias=True, repeat=ONE
        ),
        *weight_normed(positional_convolution(config, f"{encoder}.pos_conv_embed.conv")),
        *layers(config, encoder),
        *linear(f"{encoder}.upsample.projection", d * squeezed, d, part, bias=True, repeat=ONE),
    )
    result = Layout(
        family,
        tensors,
        encoder_symbols(config, heads),
        attention=(replace(heads.attention(), cache=ZERO),),
    )
    return with_speech_head(result, config, prefix, WITHOUT_PRETRAINING[:2], runs=squeezed)


def _plain(config: Config, encoder: str) -> Tensors:
    del config
    return (
        *norm(f"{encoder}.layer_norm", components.FINAL_NORM, bias=True, repeat=ONE),
        *encoder_layer(f"{encoder}.layers.{{i}}", LAYER),
    )


def _disentangled(config: Config, encoder: str) -> Tensors:
    positions = deberta_v2({**_DISENTANGLED, **config})
    return (
        *encoder_layer(f"{encoder}.encoder.layer.{{i}}", _DEBERTA_LAYER),
        *(replace(tensor, name=f"{encoder}.{tensor.name}") for tensor in positions),
    )
