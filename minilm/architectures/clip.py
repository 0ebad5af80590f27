"""CLIP and SigLIP: a tower over pictures beside one over text, whole, one of them, or as a classifier.

A picture and a text are compared once; FLOPs of a token are those of the text's. Names, shapes and
defaults: huggingface/transformers `models/{clip,siglip,siglip2}`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from minilm.architectures.building_blocks import T, V, d, equal_heads, linear, norm
from minilm.architectures.config_fields import Config, flag, layers, size, size_or_null, sub_config
from minilm.architectures.encoder_layers import encoder_layer, lookup
from minilm.architectures.task_heads import (
    class_name_of,
    head,
    number_of_classes,
    undeclared_class,
)
from minilm.architectures.vision_tower import W, clip_tower, once, siglip_tower, vision_symbols
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, ZERO, symbol

p, C = symbol("p"), symbol("C")

_LAYER = (
    "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj layer_norm1 "
    "mlp.fc1 mlp.fc2 layer_norm2"
)


@dataclass(frozen=True)
class _Variant:
    vocabulary: int = 32000
    context: int = 64
    width: int = 768
    heads: int = 12
    patch: int = 16


_VARIANTS = {
    "clip": _Variant(49408, 77, 512, 8, 32),
    "siglip": _Variant(),
    "siglip2": _Variant(),
}


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family = config["model_type"]
    for ending, tower in (("_vision_model", _vision_alone), ("_text_model", _text_alone)):
        if family.endswith(ending):
            return tower(config, family.removesuffix(ending))
    name = class_name_of(config)
    text = _text(_part(config, "text"), family, "text_model.")
    vision, symbols = _vision(_part(config, "vision"), family, "vision_model.")
    if name.endswith("ForImageClassification"):
        classes = head("classifier", C, inputs=W)
        symbols |= {"C": number_of_classes(config)}
        return Layout(family, (*vision, *classes), symbols)
    if name and not name.endswith("Model"):
        raise undeclared_class(config)
    scales: Tensors = (Tensor("logit_scale", (), components.CLASSIFIER, Role.SCALED),)
    symbols |= text.symbols
    if family == "clip":
        symbols |= {"p": size(config, "projection_dim", 512)}
        scales += (
            once("visual_projection.weight", (p, W), component=components.PROJECTOR),
            once("text_projection.weight", (p, d), component=components.PROJECTOR),
        )
    else:
        scales = tuple(
            Tensor(f"logit_{n}", (ONE,), components.CLASSIFIER, Role.SCALED)
            for n in ("scale", "bias")
        )
    return replace(text, family=family, tensors=(*text.tensors, *vision, *scales), symbols=symbols)


def _part(config: Config, name: str) -> Config:
    """Its configuration; an older field, where it is there, in place of the other, as transformers has it."""
    older = f"{name}_config_dict"
    return sub_config(config, f"{name}_config" if config.get(older) is None else older)


def _vision_alone(config: Config, family: str) -> Layout:
    name = class_name_of(config)
    if not name.endswith("WithProjection"):
        vision, symbols = _vision(config, family, "")
        return Layout(f"{family}_vision_model", vision, symbols)
    vision, symbols = _vision(config, family, "vision_model.")
    weight = once("visual_projection.weight", (p, W), component=components.PROJECTOR)
    symbols |= {"p": size(config, "projection_dim", 512)}
    return Layout(f"{family}_vision_model", (*vision, weight), symbols)


def _text_alone(config: Config, family: str) -> Layout:
    if not class_name_of(config).endswith("WithProjection"):
        return replace(_text(config, family, ""), family=f"{family}_text_model")
    text = _text(config, family, "text_model.")
    weight = once("text_projection.weight", (p, d), component=components.PROJECTOR)
    symbols = {**text.symbols, "p": size(config, "projection_dim", 512)}
    return replace(
        text, family=f"{family}_text_model", tensors=(*text.tensors, weight), symbols=symbols
    )


def _text(config: Config, family: str, prefix: str) -> Layout:
    variant = _VARIANTS[family]
    heads = equal_heads(config, (variant.width, variant.heads, None, None))
    inner = 2048 if family == "clip" else 3072
    symbols = {
        "V": size(config, "vocab_size", variant.vocabulary),
        "T": size(config, "max_position_embeddings", variant.context),
        "L": layers(config, "num_hidden_layers", 12),
        "f": size(config, "intermediate_size", inner),
        **heads.symbols,
    }
    block = f"{prefix}encoder.layers.{{i}}"
    position = components.POSITION_EMBEDDING
    last: Tensors = ()
    if family != "clip":
        symbols["p"] = size_or_null(config, "projection_size", symbols["d"])
        weight, bias = linear(f"{prefix}head", p, d, components.POOLER, bias=True, repeat=ONE)
        last = (replace(weight, role=Role.ONCE), bias)
    return Layout(
        family,
        (
            lookup(f"{prefix}embeddings.token_embedding", V, components.TOKEN_EMBEDDING),
            lookup(f"{prefix}embeddings.position_embedding", T, position),
            *encoder_layer(block, _LAYER),
            *norm(f"{prefix}final_layer_norm", components.FINAL_NORM, bias=True, repeat=ONE),
            *last,
        ),
        symbols,
        attention=(AttentionSpec(heads.attention().layers, ZERO, heads.queries, heads.queries),),
        context_length=symbols["T"],
    )


def _vision(config: Config, family: str, prefix: str) -> tuple[Tensors, dict[str, int]]:
    variant = _VARIANTS[family]
    patch, channels = size(config, "patch_size", variant.patch), size(config, "num_channels", 3)
    symbols = vision_symbols(
        config, width=768, depth=12, inner=3072, image=224, patch=variant.patch
    )
    tower = prefix.removesuffix(".")
    if family == "clip":
        tensors = clip_tower(tower, channels=channels, patch=patch)
    else:
        has_head = flag(config, "vision_use_head", True)
        tensors = siglip_tower(
            tower,
            channels=channels,
            patch=patch,
            has_pooling_head=has_head,
            is_flat=family == "siglip2",
        )
        if family == "siglip2":
            symbols["P"] = size(config, "num_patches", 256)
    if not prefix:
        tensors = tuple(replace(t, name=t.name.removeprefix(".")) for t in tensors)
    return tensors, symbols
