"""Vision transformers as classifiers of images or alone: ViT, DeiT, BEiT, Data2Vec, DINOv2 and 3, I-JEPA.

A token is a square of the picture; its FLOPs are counted as those of a token of text are. BEiT scales its
layers and may add relative positions, DINO has registers and gated feed-forwards. Names, shapes and
defaults: huggingface/transformers `models/TYPE`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from minilm.architectures.building_blocks import L, d, equal_heads, f, h, linear, norm
from minilm.architectures.config_fields import (
    Config,
    flag,
    is_version_4,
    layers,
    number,
    sides,
    size,
    size_or_null,
    squares,
    whole_number,
)
from minilm.architectures.encoder_layers import encoder_layer
from minilm.architectures.task_heads import (
    C,
    class_ending,
    class_name_of,
    head,
    number_of_classes,
    without_prefix,
)
from minilm.architectures.vision_parts import (
    BACKBONE,
    IMAGES,
    NOTHING,
    batch_norm,
    convolution,
    joined,
)
from minilm.architectures.vision_tower import Part
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, ZERO, Polynomial, as_polynomial, symbol

P, p = symbol("P"), symbol("p")

_ATTENTION = (
    "attention.attention.query attention.attention.key attention.attention.value "
    "attention.output.dense"
)
VIT_LAYER = f"{_ATTENTION} layernorm_before intermediate.dense output.dense layernorm_after"
_DINO = f"{_ATTENTION} norm1 mlp.fc1 mlp.fc2 norm2"
_DINOV3 = (
    "attention.q_proj attention.k_proj attention.v_proj attention.o_proj norm1 "
    "mlp.up_proj mlp.down_proj norm2"
)


@dataclass(frozen=True)
class _Variant:
    """``tokens`` are those before the patches; ``width``, ``heads``, ``patch`` are defaults."""

    prefix: str
    tokens: tuple[str, ...] = ("cls_token",)
    layer: str = VIT_LAYER
    width: int = 768
    heads: int = 12
    patch: int = 16
    masks: bool = False  # whether it has a mask token by default
    pooled: bool = True  # the body alone has a dense pooler
    classifier_width: int = 1  # in widths of the model


_VARIANTS = {
    "beit": _Variant("beit"),
    "data2vec-vision": _Variant("data2vec_vision", pooled=False),
    "deit": _Variant("deit", ("cls_token", "distillation_token")),
    "dinov2": _Variant(
        "dinov2", layer=_DINO, patch=14, masks=True, pooled=False, classifier_width=2
    ),
    "dinov2_with_registers": _Variant(
        "dinov2_with_registers", layer=_DINO, masks=True, pooled=False, classifier_width=2
    ),
    "dinov3_vit": _Variant("dinov3_vit", layer=_DINOV3, width=384, heads=6, pooled=False),
    "ijepa": _Variant("ijepa", tokens=(), pooled=False),
    "vit": _Variant("vit"),
    "vit_msn": _Variant("vit", pooled=False),
}


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family = config["model_type"]
    variant = _VARIANTS[family]
    heads = equal_heads(config, (variant.width, variant.heads, None, None))
    width = heads.symbols["d"]
    patch = sides(config, "patch_size", variant.patch)
    grid = squares(sides(config, "image_size", 224), patch)
    inner = size(config, "intermediate_size", 4 * variant.width)
    if family.startswith("dinov2"):
        inner = width * size(config, "mlp_ratio", 4)
        if flag(config, "use_swiglu_ffn", False):
            inner = (inner * 2 // 3 + 7) // 8 * 8
    symbols = {
        "L": layers(config, "num_hidden_layers", 12),
        "P": grid[0] * grid[1],
        "f": inner,
        **heads.symbols,
    }
    attention = tuple(replace(kind, cache=ZERO) for kind in (heads.attention(),))
    body = (
        *_embeddings(config, variant, patch),
        *_layers(config, variant, grid),
        *_last(config, variant),
    )
    result = Layout(
        family,
        body,
        symbols,
        attention=attention,
        context_length=symbols["P"] + len(variant.tokens),
    )
    return _with_class(result, config, variant)


def _embeddings(config: Config, variant: _Variant, patch: tuple[int, int]) -> Tensors:
    family, part = config["model_type"], components.PATCH_EMBEDDING
    prefix = f"{variant.prefix}.embeddings"
    is_third = family == "dinov3_vit"

    def token(name: str, *shape: Polynomial | int) -> Tensor:
        return Tensor(f"{prefix}.{name}", tuple(map(as_polynomial, shape)), part, Role.ADDED)

    projection = f"{prefix}.patch_embeddings" + ("" if is_third else ".projection")
    pixels = (d, as_polynomial(size(config, "num_channels", 3)), *map(as_polynomial, patch))
    tensors = [
        *(token(name, 1, 1, d) for name in variant.tokens),
        Tensor(f"{projection}.weight", pixels, part, Role.MULTIPLIED),
        Tensor(f"{projection}.bias", (d,), part, Role.ADDED),
    ]
    registers = whole_number(config, "num_register_tokens", 0 if is_third else 4)
    if is_third:
        tensors += [token("mask_token", 1, 1, d), token("register_tokens", 1, registers, d)]
        return tuple(tensors)
    if family == "dinov2_with_registers":
        tensors.append(token("register_tokens", 1, registers, d))
    if variant.masks and flag(config, "use_mask_token", True):
        tensors.append(token("mask_token", 1, d))
    is_beit = family in ("beit", "data2vec-vision")
    if is_beit and flag(config, "use_mask_token", False):
        tensors.append(token("mask_token", 1, 1, d))
    if not is_beit or flag(config, "use_absolute_position_embeddings", False):
        shape = (ONE, P + len(variant.tokens), d)
        name, position = f"{prefix}.position_embeddings", components.POSITION_EMBEDDING
        tensors.append(Tensor(name, shape, position, Role.ADDED))
    return tuple(tensors)


def _layers(config: Config, variant: _Variant, grid: tuple[int, int]) -> Tensors:
    family = config["model_type"]
    stack = variant.prefix if family == "dinov3_vit" else f"{variant.prefix}.encoder"
    block = f"{stack}.layer.{{i}}"
    tensors = list(encoder_layer(block, variant.layer))
    if family in ("beit", "data2vec-vision"):
        without = {f"{block}.attention.attention.key.bias"}
        table = "relative_position_bias.relative_position_bias_table"
        rows = (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3
        shape, part = (as_polynomial(rows), h), components.POSITION_EMBEDDING
        if flag(config, "use_relative_position_bias", False):
            name = f"{block}.attention.attention.{table}"
            tensors.append(Tensor(name, shape, part, Role.ADDED, L))
        if flag(config, "use_shared_relative_position_bias", False):
            tensors.append(Tensor(f"{stack}.{table}", shape, part, Role.ADDED))
        if number(config, "layer_scale_init_value", 0.1) > 0:
            tensors += _scales(block, ("lambda_1", "lambda_2"))
        return tuple(t for t in tensors if t.name not in without)
    if family == "dinov3_vit":
        return _dinov3(config, block, tensors)
    is_classifier = class_name_of(config).endswith(IMAGES)
    if family == "vit_msn" and is_classifier and not is_version_4(config):
        # As transformers 5 writes the classifier's.
        tensors = [replace(t, name=t.name.removeprefix("vit.")) for t in tensors]
    if not flag(config, "qkv_bias", True):
        kinds = tuple(f".attention.attention.{n}.bias" for n in ("query", "key", "value"))
        tensors = [t for t in tensors if not t.name.endswith(kinds)]
    if family.startswith("dinov2"):
        tensors += _scales(block, ("layer_scale1.lambda1", "layer_scale2.lambda1"))
        if flag(config, "use_swiglu_ffn", False):
            tensors = [t for t in tensors if ".mlp." not in t.name]
            up, down = components.FEED_FORWARD_GATE_UP, components.FEED_FORWARD_DOWN
            tensors += linear(f"{block}.mlp.weights_in", 2 * f, d, up, bias=True)
            tensors += linear(f"{block}.mlp.weights_out", d, f, down, bias=True)
    return tuple(tensors)


def _scales(block: str, names: tuple[str, str]) -> Tensors:
    parts = (components.ATTENTION_OUTPUT_NORM, components.FEED_FORWARD_OUTPUT_NORM)
    return tuple(
        Tensor(f"{block}.{name}", (d,), part, Role.SCALED, L)
        for name, part in zip(names, parts, strict=True)
    )


def _dinov3(config: Config, block: str, tensors: list[Tensor]) -> Tensors:
    biases = {
        "attention.q_proj": flag(config, "query_bias", True),
        "attention.k_proj": flag(config, "key_bias", False),
        "attention.v_proj": flag(config, "value_bias", True),
        "attention.o_proj": flag(config, "proj_bias", True),
        "mlp.up_proj": flag(config, "mlp_bias", True),
        "mlp.down_proj": flag(config, "mlp_bias", True),
    }
    tensors += _scales(block, ("layer_scale1.lambda1", "layer_scale2.lambda1"))
    if flag(config, "use_gated_mlp", False):
        gate, bias = components.FEED_FORWARD_GATE, biases["mlp.up_proj"]
        tensors += linear(f"{block}.mlp.gate_proj", f, d, gate, bias=bias)
    without = {f"{block}.{name}.bias" for name, has_bias in biases.items() if not has_bias}
    return tuple(t for t in tensors if t.name not in without)


def _last(config: Config, variant: _Variant) -> Tensors:
    family = config["model_type"]
    if family in ("beit", "data2vec-vision") and flag(config, "use_mean_pooling", True):
        return ()
    name = "norm" if family == "dinov3_vit" else "layernorm"
    return norm(f"{variant.prefix}.{name}", components.FINAL_NORM, bias=True, repeat=ONE)


def _with_class(result: Layout, config: Config, variant: _Variant) -> Layout:
    family, prefix = config["model_type"], f"{variant.prefix}."
    is_beit = family in ("beit", "data2vec-vision")
    pooler: Tensors = ()
    if is_beit and flag(config, "use_mean_pooling", True):
        pooler = norm(f"{prefix}pooler.layernorm", components.POOLER, bias=True, repeat=ONE)
    symbols = dict(result.symbols)
    names: dict[str, tuple[str, ...]] = {"Model": ()}
    if family != "dinov3_vit":
        names[IMAGES] = ("classifier",)
        names[f"{IMAGES}WithTeacher"] = ("cls_classifier", "distillation_classifier")
    if variant.masks or family in ("beit", "dinov3_vit"):
        names[BACKBONE] = ()
    ending = class_ending(config, names)
    if is_beit and ending == BACKBONE:
        # transformers 5 writes these two under the name of the model within, the others without it.
        inside = (f"{prefix}layernorm.", f"{prefix}encoder.relative_position_bias.")
        kept = tuple(t for t in result.tensors if t.name.startswith(inside))
        own = without_prefix(tuple(t for t in result.tensors if t not in kept), prefix)
        maps = _pyramid(config)
        return replace(result, tensors=(*own, *kept, *maps.tensors), buffers=maps.buffers)
    if ending in ("Model", BACKBONE):
        if not variant.pooled:
            pooler = ()
        elif not is_beit:
            symbols["p"] = size_or_null(config, "pooler_output_size", symbols["d"])
            pooler = head(f"{prefix}pooler.dense", p, component=components.POOLER)
        body = without_prefix((*result.tensors, *pooler), prefix)
        return replace(result, tensors=body, symbols=symbols)
    symbols["C"] = number_of_classes(config)
    inputs = variant.classifier_width * d
    classes = (t for own in names[ending] for t in head(own, C, inputs=inputs))
    return replace(result, tensors=(*result.tensors, *pooler, *classes), symbols=symbols)


def _pyramid(config: Config) -> Part:
    """Larger pictures of the first two of four maps, where a backbone gives them."""
    if not flag(config, "add_fpn", False):
        return NOTHING
    maps = config.get("out_features") or config.get("out_indices") or ()
    if not isinstance(maps, (list, tuple)) or len(maps) != 4:
        raise ConfigError("config.json: add_fpn", "true", "four out_features beside it")
    return joined(
        convolution("fpn1.0", d, d, 2, bias=True),
        batch_norm("fpn1.1", d),
        convolution("fpn1.3", d, d, 2, bias=True),
        convolution("fpn2.0", d, d, 2, bias=True),
    )
