"""InternVL's chat models of remote code: a declared language model, InternViT, and a projection between them.

Names and shapes: OpenGVLab/InternVL `modeling_internvl_chat.py` and `modeling_intern_vit.py`; defaults, the
configuration files beside them.
"""

from __future__ import annotations

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, choice, flag, size, sub_config
from minilm.architectures.image_projectors import pixels_merged
from minilm.architectures.joint_text import Model, joined, text_layout
from minilm.architectures.task_heads import class_name_of, undeclared_class
from minilm.architectures.vision_tower import (
    F,
    P,
    Part,
    W,
    Y,
    gain,
    matrix,
    once,
    projector,
    vector,
    vision_symbols,
)
from minilm.ledger.layout import Layout, Role

_MODEL = Model(
    "llama", "", lambda config, vision, name: (), inside="language_model.", own_ties=True
)


def layout(config: Config) -> Layout:
    """The tensors of InternVLChatModel for a config.json."""
    name = class_name_of(config)
    if name and not name.endswith("InternVLChatModel"):
        raise undeclared_class(config)
    fields = {"text_config": {"model_type": _MODEL.text, **sub_config(config, "llm_config")}}
    merged = pixels_merged(config)
    between = (
        *vector("mlp1.0", merged),
        *matrix("mlp1.1", (d, merged)),
        *matrix("mlp1.3", (d, d)),
    )
    return joined(
        text_layout(fields, _MODEL),
        "internvl_chat",
        _tower(sub_config(config, "vision_config")),
        Part(projector(between)),
    )


def _tower(config: Config) -> Part:
    block, embeddings = "vision_model.encoder.layers.{i}", "vision_model.embeddings"
    patch = size(config, "patch_size", 14)
    norm = choice(config, "norm_type", "rms_norm", ("rms_norm", "layer_norm"))
    norms = (f"{block}.norm1", f"{block}.norm2")
    tensors = [
        once(f"{embeddings}.class_embedding", (1, 1, W)),
        *matrix(f"{embeddings}.patch_embedding", (W, 3, patch, patch)),
        once(f"{embeddings}.position_embedding", (1, P + 1, W)),
        *matrix(f"{block}.attn.qkv", (3 * W, W), Y, bias=flag(config, "qkv_bias", False)),
        *matrix(f"{block}.attn.proj", (W, W), Y),
        *matrix(f"{block}.mlp.fc1", (F, W), Y),
        *matrix(f"{block}.mlp.fc2", (W, F), Y),
        *(once(f"{block}.ls{n}", (W,), Role.SCALED, Y) for n in (1, 2)),
    ]
    if norm == "layer_norm":
        tensors += [t for each in norms for t in vector(each, W, Y)]
    else:
        tensors += [gain(each, W, Y) for each in norms]
    if flag(config, "qk_normalization", True):
        tensors += [gain(f"{block}.attn.{n}_norm", W, Y) for n in "qk"]
    symbols = vision_symbols(config, width=3200, depth=48, inner=12800, image=224, patch=14)
    return Part(tuple(tensors), symbols)
