"""YOLOS: a ViT whose last tokens each find an object, with positions before every layer.

Names, shapes and defaults: huggingface/transformers `models/yolos`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.building_blocks import L, d, equal_heads, norm
from minilm.architectures.config_fields import Config, flag, layers, sides, size, whole_number
from minilm.architectures.encoder_layers import encoder_layer
from minilm.architectures.task_heads import C, class_ending, head, number_of_classes
from minilm.architectures.vit import VIT_LAYER
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, ZERO, as_polynomial, symbol

P, _FOUND = symbol("P"), symbol("q")


def layout(config: Config) -> Layout:
    """The tensors of a class of this type for a config.json."""
    heads = equal_heads(config, (768, 12, None, None))
    patch, channels = sides(config, "patch_size", 16), size(config, "num_channels", 3)
    picture = sides(config, "image_size", (512, 864))
    symbols = {
        **heads.symbols,
        "L": layers(config, "num_hidden_layers", 12),
        "P": (picture[0] // patch[0]) * (picture[1] // patch[1]),
        "q": whole_number(config, "num_detection_tokens", 100),
        "f": size(config, "intermediate_size", 3072),
    }
    part, table = components.PATCH_EMBEDDING, components.POSITION_EMBEDDING
    first, name = "embeddings", "embeddings.patch_embeddings.projection"
    pixels = (d, as_polynomial(channels), *map(as_polynomial, patch))
    tensors = [
        Tensor(f"{first}.cls_token", (ONE, ONE, d), part, Role.ADDED),
        Tensor(f"{first}.detection_tokens", (ONE, _FOUND, d), part, Role.ADDED),
        Tensor(f"{name}.weight", pixels, part, Role.MULTIPLIED),
        Tensor(f"{name}.bias", (d,), part, Role.ADDED),
        Tensor(f"{first}.position_embeddings", (ONE, P + _FOUND + 1, d), table, Role.ADDED),
    ]
    if flag(config, "use_mid_position_embeddings", True):
        # Of a picture that is no whole number of patches they are more.
        patches = picture[0] * picture[1] // (patch[0] * patch[1])
        own = P if patches == symbols["P"] else as_polynomial(patches)
        shape = (L - 1, ONE, own + _FOUND + 1, d)
        tensors.append(Tensor("encoder.mid_position_embeddings", shape, table, Role.ADDED))
    has_bias = flag(config, "qkv_bias", True)
    without = tuple(f".attention.attention.{kind}.bias" for kind in ("query", "key", "value"))
    tensors += (
        t
        for t in encoder_layer("encoder.layer.{i}", VIT_LAYER)
        if has_bias or not t.name.endswith(without)
    )
    tensors += norm("layernorm", components.FINAL_NORM, bias=True, repeat=ONE)
    result = Layout(
        "yolos",
        tuple(tensors),
        symbols,
        attention=(replace(heads.attention(), cache=ZERO),),
        context_length=symbols["P"] + symbols["q"] + 1,
    )
    return _with_class(result, config)


def _with_class(body: Layout, config: Config) -> Layout:
    if class_ending(config, ("Model", "ForObjectDetection")) == "Model":
        pooler = head("pooler.dense", d, component=components.POOLER)
        return replace(body, tensors=(*body.tensors, *pooler))
    own = (replace(t, name=f"vit.{t.name}") for t in body.tensors)
    maps = (
        t
        for kind, outputs in (("class_labels_classifier", C + 1), ("bbox_predictor", 4 * ONE))
        for index, rows in enumerate((d, d, outputs))
        for t in head(f"{kind}.layers.{index}", rows)
    )
    symbols = {**body.symbols, "C": number_of_classes(config)}
    return replace(body, tensors=(*own, *maps), symbols=symbols)
