"""Phi-4-multimodal of remote code: the model of `phi4_multimodal.py` under earlier names, and its adapters.

The language model has a LoRA for pictures and one for sounds; a token of text uses neither. Names and shapes:
microsoft/Phi-4-multimodal-instruct `modeling_phi4mm.py`, and what transformers' names were in it,
huggingface/transformers `models/phi4_multimodal/convert_phi4_multimodal_weights_to_hf.py`. The fields of the
sound's encoder have no defaults: those of its code are another model's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.config_fields import Config, flag, size, sub_config
from minilm.architectures.phi3 import layout as text_layout
from minilm.architectures.phi4_multimodal import layout as later_layout
from minilm.architectures.task_heads import (
    CAUSAL,
    UndeclaredClassError,
    class_name_of,
    undeclared_class,
)
from minilm.ledger.layout import Layout, Role, Tensor, Tensors
from minilm.ledger.layout_changes import check_rank
from minilm.ledger.symbols import as_polynomial

_NAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\.feed_forward_(in|out)\.gate_up_proj\.", r".feed_forward_\1.net.0.linear."),
        (r"\.feed_forward_(in|out)\.down_proj\.", r".feed_forward_\1.net.2."),
        (r"(\.encoders\..*\.self_attn)\.([qkv])_proj\.", r"\1.linear_\2."),
        (r"(\.encoders\..*\.self_attn)\.o_proj\.", r"\1.linear_out."),
        (r"\.img_projection_up\.", ".img_projection.0."),
        (r"\.img_projection_down\.", ".img_projection.2."),
        (r"\.global_img_feature_extensor", ".glb_GN"),
        (r"\.sub_img_feature_extensor", ".sub_GN"),
        (r"\.up_proj_for_speech\.", ".audio_projection.speech.0."),
        (r"\.down_proj_for_speech\.", ".audio_projection.speech.2."),
        (r"\.up_proj_for_vision_speech\.", ".audio_projection.vision.0."),
        (r"\.down_proj_for_vision_speech\.", ".audio_projection.vision.2."),
    )
)
_TEXT = {"vocab_size": 200064, "num_key_value_heads": None, "max_position_embeddings": 4096}
_ADAPTED = re.compile(r"model\.layers\..*\.(qkv_proj|o_proj|gate_up_proj|down_proj)\.weight")
_AUDIO_SIZES = {
    "attention_dim": "hidden_size",
    "attention_heads": "num_attention_heads",
    "linear_units": "intermediate_size",
    "num_blocks": "num_blocks",
    "input_size": "input_size",
    "time_reduction": "time_reduction",
    "kernel_size": "kernel_size",
    "ext_pw_out_channel": "ext_pw_out_channel",
    "depthwise_multiplier": "depthwise_multiplier",
    "depthwise_seperable_out_channel": "depthwise_separable_out_channel",  # so in the files
}
_IMAGE_EMBEDDING = {
    "projection_cls": "mlp",
    "use_hd_transform": True,
    "image_token_compression_cls": "avg_pool_2d",
}
_AUDIO_EMBEDDING = {"projection_cls": "mlp"}
_ENCODER = {"bias_in_glu": True, "batch_norm": False, "ext_pw_kernel_size": 1}


def layout(config: Config) -> Layout:
    """The tensors of Phi4MMForCausalLM for a config.json."""
    name = class_name_of(config)
    if name and not name.endswith(CAUSAL):
        raise undeclared_class(config)
    fields = {**_TEXT, **config, "model_type": "phi3"}
    has_towers = isinstance(config.get("embd_layer"), Mapping)
    whole = later_layout(fields | _towers(config)) if has_towers else text_layout(fields)
    # What the bands' mean and spread are is a parameter here.
    tensors = _earlier((*whole.tensors, *whole.buffers))
    adapted = _with_adapters(tensors, config, whole)
    return replace(whole, family="phi4mm", tensors=adapted, buffers=())


def _towers(config: Config) -> dict[str, Any]:
    """The fields of both, as transformers has them."""
    embedding = sub_config(config, "embd_layer")
    image, audio = (sub_config(embedding, f"{kind}_embd_layer") for kind in ("image", "audio"))
    _check(image, _IMAGE_EMBEDDING)
    _check(audio, _AUDIO_EMBEDDING)
    encoder = sub_config(sub_config(config, "audio_processor"), "config")
    _check(encoder, _ENCODER)
    sound = {**_later_fields(encoder), "downsample_rate": size(audio, "downsample_rate", 1)}
    return {"vision_config": {}, "audio_config": sound}


def _check(config: Config, fields: Config) -> None:
    for name, value in fields.items():
        if config.get(name) != value:
            got = shortened(config.get(name))
            raise UndeclaredClassError(f"config.json: {name}", got, f"{value}, as published")


def _later_fields(encoder: Config) -> dict[str, Any]:
    distances = sub_config(encoder, "relative_attention_bias_args")
    return {
        **{later: size(encoder, name) for name, later in _AUDIO_SIZES.items()},
        "nemo_conv_channels": size(sub_config(encoder, "nemo_conv_settings"), "conv_channels"),
        "bias_max_distance": size(distances, "t5_bias_max_distance", 1000),
        "bias_symmetric": flag(distances, "t5_bias_symmetric", False),
    }


def _earlier(tensors: Tensors) -> Tensors:
    def renamed(name: str) -> str:
        for pattern, earlier in _NAMES:
            name = pattern.sub(earlier, name)
        return name

    return tuple(replace(tensor, name=renamed(tensor.name)) for tensor in tensors)


def _with_adapters(tensors: Tensors, config: Config, whole: Layout) -> Tensors:
    """Each matrix of the language model's layers is inside `base_layer`, beside the factors of the LoRAs."""
    ranks = {}
    for kind in ("vision", "speech"):
        if config.get(f"{kind}_lora") is None:
            continue
        lora = sub_config(config, f"{kind}_lora")
        where = str(lora.get("layer", ""))
        attention = ("(qkv|o)_proj", "(qkv_proj|o_proj)")  # a file's expression is never run
        if not any(each in where for each in attention) or "(gate_up|down)_proj" not in where:
            expected = "qkv|o and gate_up|down, as published"
            raise UndeclaredClassError(f"config.json: {kind}_lora", shortened(where), expected)
        ranks[kind] = size(lora, "r")
    found: list[Tensor] = []
    for tensor in tensors:
        if not ranks or not _ADAPTED.fullmatch(tensor.name):
            found.append(tensor)
            continue
        stem, (outputs, inputs) = tensor.name.removesuffix("weight"), tensor.shape
        found.append(replace(tensor, name=f"{stem}base_layer.weight"))
        part = replace(tensor, component=f"LoRA of {tensor.component}", role=Role.ONCE)
        for kind, rank in ranks.items():
            check_rank(rank, whole, tensor.name, tensor.shape)
            r = as_polynomial(rank)
            found.append(replace(part, name=f"{stem}lora_A.{kind}.weight", shape=(r, inputs)))
            found.append(replace(part, name=f"{stem}lora_B.{kind}.weight", shape=(outputs, r)))
    return tuple(found)
