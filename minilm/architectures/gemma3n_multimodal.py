"""Gemma 3n with images and sound: the language model of `gemma3n.py`, timm's MobileNetV5, and a conformer.

What a tower puts out, and tokens that stand for it, pass one map to the text's width. Both towers are used
once, not once a token. Names, shapes and defaults: huggingface/transformers `models/gemma3n` (its
ForConditionalGeneration).
"""

from __future__ import annotations

from dataclasses import replace
from reprlib import repr as shortened

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, layers, listed, size, sizes, sub_config
from minilm.architectures.gemma3n import layout as text_layout
from minilm.architectures.joint_text import is_tied_as_a_whole, joined
from minilm.architectures.mobilenet5 import mobilenet5
from minilm.architectures.task_heads import UndeclaredClassError
from minilm.architectures.vision_tower import (
    Part,
    Width,
    gain,
    heard,
    once,
    projector,
    without_bias,
)
from minilm.ledger.layout import Layout, Tensor, Tensors
from minilm.ledger.symbols import as_polynomial, symbol

a, z = symbol("a"), symbol("z")
_TOWER = "mobilenetv5_300m_enc"


def layout(config: Config) -> Layout:
    """The tensors of Gemma3nForConditionalGeneration for a config.json."""
    version = config.get("transformers_version")
    text_config = {"transformers_version": version, **sub_config(config, "text_config")}
    fields = {**text_config, "model_type": "gemma3n_text"}
    text = text_layout({**fields, "tie_word_embeddings": is_tied_as_a_whole(config, True)})
    vision, audio = sub_config(config, "vision_config"), sub_config(config, "audio_config")
    kind = vision.get("architecture", _TOWER)
    if kind != _TOWER or vision.get("model_args"):
        what = shortened(vision.get("model_args") or kind)
        raise UndeclaredClassError("config.json: vision_config", what, f"{_TOWER} as it is")
    inside = replace(
        text,
        tensors=tuple(replace(t, name=_renamed(t.name)) for t in text.tensors),
        ties=tuple((head, _renamed(table)) for head, table in text.ties),
    )
    return joined(
        inside,
        "gemma3n",
        mobilenet5("model.vision_tower.timm_model"),
        heard(_conformer(audio, "model.audio_tower")),
        Part(_embedder(vision, "model.embed_vision", 2048)),
        heard(Part(_embedder(audio, "model.embed_audio", 1536))),
    )


def _renamed(name: str) -> str:
    return name.replace("model.", "model.language_model.", 1)


def _embedder(config: Config, name: str, default: int) -> Tensors:
    width = size(config, "hidden_size", default)
    return projector(
        [
            without_bias(f"{name}.embedding", size(config, "vocab_size", 128), width),
            gain(f"{name}.hard_embedding_norm", width),
            gain(f"{name}.soft_embedding_norm", width),
            without_bias(f"{name}.embedding_projection", d, width),
        ]
    )


def _conformer(config: Config, name: str) -> Part:
    block, width = f"{name}.conformer.{{i}}", size(config, "hidden_size", 1536)
    heads = size(config, "conf_num_attention_heads", 8)
    head = max(1, width // heads)
    queries: Width = a if heads * head == width else as_polynomial(heads * head)
    attention = f"{block}.attention"
    inner, filters = f"{attention}.attn", f"{block}.lconv1d"
    maps = (f"{inner}.{n}" for n in ("q_proj", "k_proj", "v_proj"))
    taps = size(config, "conf_conv_kernel_size", 5)
    tensors = (
        *_fewer_places(config, f"{name}.subsample_conv_projection"),
        *_feed_forward(f"{block}.ffw_layer_start"),
        gain(f"{attention}.pre_attn_norm", a, z),
        *(without_bias(each, queries, a, repeat=z) for each in maps),
        without_bias(f"{inner}.relative_position_embedding.pos_proj", queries, a, repeat=z),
        once(f"{inner}.per_dim_scale", (head,), repeat=z),
        without_bias(f"{attention}.post", a, a, repeat=z),
        gain(f"{attention}.post_norm", a, z),
        gain(f"{filters}.pre_layer_norm", a, z),
        without_bias(f"{filters}.linear_start", 2 * a, a, repeat=z),
        without_bias(f"{filters}.depthwise_conv1d", a, 1, taps, repeat=z),
        gain(f"{filters}.conv_norm", a, z),
        without_bias(f"{filters}.linear_end", a, a, repeat=z),
        *_feed_forward(f"{block}.ffw_layer_end"),
        gain(f"{block}.norm", a, z),
    )
    return Part(tensors, {"a": width, "z": layers(config, "conf_num_hidden_layers", 12)})


def _feed_forward(name: str) -> Tensors:
    return (
        gain(f"{name}.pre_layer_norm", a, z),
        without_bias(f"{name}.ffw_layer_1", 4 * a, a, repeat=z),
        without_bias(f"{name}.ffw_layer_2", a, 4 * a, repeat=z),
        gain(f"{name}.post_layer_norm", a, z),
    )


def _fewer_places(config: Config, name: str) -> Tensors:
    """Two convolutions over time and frequency, and a map of all frequencies that are left."""
    channels = sizes(config, "sscp_conv_channel_size", (128, 32), 2)
    kernels = listed(config, "sscp_conv_kernel_size", ((3, 3), (3, 3)), 2)
    strides = listed(config, "sscp_conv_stride_size", ((2, 2), (2, 2)), 2)
    bands, inputs = size(config, "input_feat_size", 128), 1
    tensors: list[Tensor] = []
    for number, outputs in enumerate(channels):
        kernel = sizes({"sscp_conv_kernel_size": kernels[number]}, "sscp_conv_kernel_size", (), 2)
        stride = sizes({"sscp_conv_stride_size": strides[number]}, "sscp_conv_stride_size", (), 2)
        tensors += [
            without_bias(f"{name}.conv_{number}.conv", outputs, inputs, *kernel),
            gain(f"{name}.conv_{number}.norm", outputs),
        ]
        bands, inputs = max(1, (bands + 2 - kernel[1]) // stride[1] + 1), outputs
    return (*tensors, without_bias(f"{name}.input_proj_linear", a, channels[-1] * bands))
