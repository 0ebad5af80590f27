"""Swin and its kin: attention in windows that shift, stages that merge four squares and double the width.

Swin 2 scales cosines of queries and keys and computes its positions; Donut's ends without a norm. Names,
shapes and defaults: huggingface/transformers `models/{swin,swinv2,donut}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, flag, is_version_4, sides, size
from minilm.architectures.staged_vision import (
    Stage,
    doubling,
    heads_of,
    inner_width,
    masked_images,
)
from minilm.architectures.vision_parts import (
    BACKBONE,
    IMAGES,
    MASKED_IMAGES,
    NOTHING,
    as_class,
    attention,
    classifier,
    convolution,
    feed_forward,
    in_layers,
    joined,
    linear,
    norm,
    norms,
    output_norms,
    parameter,
    under,
)
from minilm.architectures.vision_tower import Part, once
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role
from minilm.ledger.symbols import ONE

_PATCH, _POSITION = components.PATCH_EMBEDDING, components.POSITION_EMBEDDING
_FINAL = components.FINAL_NORM
_SELF, _INDEX = "attention.self.", "attention.self.relative_position_index"
_DEPTHS = (2, 2, 6, 2)
_POSITION_WIDTH = 512  # of the network that computes Swin 2's positions


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family = config["model_type"]
    is_donut = family == "donut-swin"
    prefix = "donut." if is_donut else f"{family}."
    each = doubling(config, _DEPTHS)
    heads = heads_of(config, "num_heads", (3, 6, 12, 24), [stage.value for stage in each])
    last = each[-1].width
    trunk = joined(
        Part((), {"d": each[0].value}),
        _embeddings(config),
        under("encoder.", swin_stages(config, each, heads)),
    )
    body = joined(trunk, NOTHING if is_donut else norm("layernorm", last, _FINAL))
    whole = under(prefix, body)
    classes = {"Model": body, IMAGES: joined(whole, classifier(config, "classifier", last))}
    if is_donut:
        return as_class(config, classes)
    maps = output_norms(config, [stage.width for stage in each], _DEPTHS)
    # transformers 5 keeps a norm that it does not use, under the name of the model within.
    unused = NOTHING if is_version_4(config) else norm("swin.layernorm", last, _FINAL)
    classes[BACKBONE] = trunk if family == "swinv2" else joined(trunk, unused, maps)
    classes[MASKED_IMAGES] = joined(whole, masked_images(config, family, last))
    block = "encoder.layers.{i}.blocks.{i}."
    recomputed = (block + _INDEX, f"{block}{_SELF}relative_coords_table")
    ignored = (*recomputed, *(prefix + name for name in recomputed))
    return replace(as_class(config, classes), buffers=(), ignored=ignored)


def _embeddings(config: Config) -> Part:
    patch, picture = sides(config, "patch_size", 4), sides(config, "image_size", 224)
    channels = size(config, "num_channels", 3)
    rows = (picture[0] // patch[0]) * (picture[1] // patch[1])
    rows += config["model_type"] != "swin"  # the others have one for a class, which they have not
    table = parameter("position_embeddings", (1, rows, d), _POSITION, Role.ADDED)
    return under(
        "embeddings.",
        convolution("patch_embeddings.projection", d, channels, patch, _PATCH, bias=True),
        norm("norm", d, components.EMBEDDING_NORM),
        table if flag(config, "use_absolute_embeddings", False) else NOTHING,
    )


def swin_stages(config: Config, each: Sequence[Stage], heads: Sequence[int]) -> Part:
    """The stages, with each block's index of positions, which not all files hold."""
    is_second = config.get("model_type") == "swinv2"
    parts = []
    for stage, count in zip(each, heads, strict=True):
        name, width = f"layers.{stage.number}", stage.width
        block = under(f"{name}.blocks.{{i}}.", _block(config, stage, count))
        parts.append(in_layers(block, stage.depth))
        if stage is not each[-1]:
            down, gathered = f"{name}.downsample", (2 if is_second else 4) * width
            parts.append(linear(f"{down}.reduction", 2 * width, 4 * width, _PATCH, bias=False))
            parts.append(norm(f"{down}.norm", gathered, _PATCH))
    return joined(*parts)


def _block(config: Config, stage: Stage, heads: int) -> Part:
    width, bias = stage.width, flag(config, "qkv_bias", True)
    maps = attention(
        f"{_SELF}query {_SELF}key {_SELF}value attention.output.dense", width, bias=bias
    )
    if config.get("model_type") == "swinv2":
        maps = Part(tuple(t for t in maps.tensors if not t.name.endswith("key.bias")))
    return joined(
        norms("layernorm_before layernorm_after", width),
        maps,
        feed_forward("intermediate.dense output.dense", width, inner_width(config, stage)),
        _positions(config, heads),
    )


def _positions(config: Config, heads: int) -> Part:
    window = size(config, "window_size", 7)
    index = Part((), buffers=(once(_INDEX, (window**2, window**2), component=_POSITION),))
    if config.get("model_type") != "swinv2":
        table, rows = f"{_SELF}relative_position_bias_table", (2 * window - 1) ** 2
        return joined(parameter(table, (rows, heads), _POSITION, Role.ADDED), index)
    scale, part, inner = (heads, ONE, ONE), components.ATTENTION_QK_NORM, _POSITION_WIDTH
    return under(
        _SELF,
        parameter("logit_scale", scale, part, Role.SCALED),
        linear("continuous_position_bias_mlp.0", inner, 2, _POSITION),
        linear("continuous_position_bias_mlp.2", heads, inner, _POSITION, bias=False),
    )
