"""Granite Speech: a Conformer over sounds, BLIP-2's querying transformer, and a declared text model.

A block of the Conformer has two feed-forwards, attention with relative positions, and a convolution whose
batch norm has buffers. Names, shapes and defaults: huggingface/transformers
`models/{granite_speech,granite_speech_plus}`; the adapter (LoRA) is in files of its own.
"""

from __future__ import annotations

from minilm.architectures.blip2 import a, asking
from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, field_name, flag, layers, size, sub_config
from minilm.architectures.joint_text import Model, joined, text_layout
from minilm.architectures.task_heads import whole_or_body
from minilm.architectures.vision_tower import (
    Part,
    W,
    Y,
    heard,
    matrix,
    once,
    projector,
    running_statistics,
    vector,
    without_bias,
)
from minilm.errors import ConfigError
from minilm.ledger.layout import Layout, Tensors
from minilm.ledger.symbols import Polynomial

_MODEL = Model("granite", "", lambda config, vision, name: (), inside="language_model.")


def layout(config: Config) -> Layout:
    """The tensors of these types' ForConditionalGeneration, and of their bodies, for a config.json."""
    reading = sub_config(config, "projector_config")
    depth, window = layers(reading, "num_hidden_layers", 12), size(config, "window_size", 15)
    rate = size(config, "downsample_rate", 5)
    queries = window // rate
    if not queries:
        raise ConfigError("config.json: downsample_rate", f"{rate}", "no more than window_size")
    tensors = (
        once("projector.query", (1, queries, a)),
        *asking(reading, depth, "projector.qformer", reads_text=_reads_text(reading)),
        *matrix("projector.linear", (d, a)),
    )
    symbols = {"a": size(reading, "hidden_size", 768), "z": depth}
    between = Part(projector(tensors), symbols)
    text = text_layout(config, _MODEL)
    encoder = _conformer(sub_config(config, "encoder_config"))
    return whole_or_body(joined(text, config["model_type"], encoder, between), config)


def _reads_text(config: Config) -> bool:
    return flag(config, "use_qformer_text_input", False)


def _conformer(config: Config) -> Part:
    block = "encoder.layers.{i}"
    width = size(config, field_name(config, "hidden_dim", "hidden_size"), 1024)
    heads = size(config, field_name(config, "num_heads", "num_attention_heads"), 8)
    head = size(config, "dim_head", max(1, width // heads))
    inner, forward = heads * head, size(config, "feedforward_mult", 4) * W
    wide = size(config, "conv_expansion_factor", 2) * W
    inputs = size(config, field_name(config, "input_dim", "num_mel_bins"), 160)
    outputs, taps = size(config, "output_dim", 42), size(config, "conv_kernel_size", 15)
    rows = 2 * size(config, "max_pos_emb", 512) + 1
    conv, attention = f"{block}.conv", f"{block}.attn"
    tensors = (
        *matrix("encoder.input_linear", (W, inputs)),
        *_forward(f"{block}.ff1", forward),
        *vector(f"{attention}.pre_norm", W, Y),
        without_bias(f"{attention}.to_q", inner, W, repeat=Y),
        without_bias(f"{attention}.to_kv", 2 * inner, W, repeat=Y),
        *matrix(f"{attention}.to_out", (W, inner), Y),
        without_bias(f"{attention}.rel_pos_emb", rows, head, repeat=Y),
        *vector(f"{conv}.norm", W, Y),
        *matrix(f"{conv}.up_conv", (2 * wide, W, 1), Y),
        without_bias(f"{conv}.depth_conv.conv", wide, 1, taps, repeat=Y),
        *vector(f"{conv}.batch_norm", wide, Y),
        *matrix(f"{conv}.down_conv", (W, wide, 1), Y),
        *_forward(f"{block}.ff2", forward),
        *vector(f"{block}.post_norm", W, Y),
        *matrix("encoder.out", (outputs, W)),
        *matrix("encoder.out_mid", (W, outputs)),
    )
    buffers = running_statistics(f"{conv}.batch_norm", wide, repeat=Y)
    depth = layers(config, field_name(config, "num_layers", "num_hidden_layers"), 10)
    return heard(Part(tensors, {"W": width, "Y": depth}, buffers))


def _forward(name: str, inner: Polynomial) -> Tensors:
    return (
        *vector(f"{name}.pre_norm", W, Y),
        *matrix(f"{name}.up_proj", (inner, W), Y),
        *matrix(f"{name}.down_proj", (W, inner), Y),
    )
