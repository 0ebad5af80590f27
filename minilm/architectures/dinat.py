"""DiNAT: each square attends to its neighbours, in some layers to those some squares apart.

Squares are made by convolutions that overlap. Names, shapes and defaults: huggingface/transformers
`models/dinat`.
"""

from __future__ import annotations

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, flag, number, size
from minilm.architectures.staged_vision import Stage, doubling, heads_of, inner_width
from minilm.architectures.vision_parts import (
    IMAGES,
    NOTHING,
    as_class,
    attention,
    classifier,
    convolution,
    feed_forward,
    in_layers,
    joined,
    norm,
    norms,
    parameter,
    under,
)
from minilm.architectures.vision_tower import Part
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role
from minilm.ledger.symbols import as_polynomial

_PATCH, _NORM, _SELF = components.PATCH_EMBEDDING, components.EMBEDDING_NORM, "attention.self."


def layout(config: Config) -> Layout:
    """The tensors of a class of DiNAT for a config.json."""
    each = doubling(config, (3, 4, 6, 5), 64)
    heads = heads_of(config, "num_heads", (2, 4, 8, 16), [stage.value for stage in each])
    base, channels = each[0].value, size(config, "num_channels", 3)
    half, projection = as_polynomial(base // 2), "embeddings.patch_embeddings.projection"
    parts = [
        Part((), {"d": base}),
        convolution(f"{projection}.0", half, channels, 3, _PATCH, bias=True),
        convolution(f"{projection}.1", d, half, 3, _PATCH, bias=True),
        norm("embeddings.norm", d, _NORM),
    ]
    for stage, count in zip(each, heads, strict=True):
        prefix, width = f"encoder.levels.{stage.number}", stage.width
        layer = under(f"{prefix}.layers.{{i}}.", _layer(config, stage, count))
        parts.append(in_layers(layer, stage.depth))
        if stage is not each[-1]:
            down = f"{prefix}.downsample"
            parts.append(convolution(f"{down}.reduction", 2 * width, width, 3, _PATCH))
            parts.append(norm(f"{down}.norm", 2 * width, _NORM))
    last = each[-1].width
    body = joined(*parts, norm("layernorm", last, components.FINAL_NORM))
    images = joined(under("dinat.", body), classifier(config, "classifier", last))
    return as_class(config, {"Model": body, IMAGES: images})


def _layer(config: Config, stage: Stage, heads: int) -> Part:
    width, bias = stage.width, flag(config, "qkv_bias", True)
    rows, part = 2 * size(config, "kernel_size", 7) - 1, components.POSITION_EMBEDDING
    scales = NOTHING
    if number(config, "layer_scale_init_value", 0.0) > 0:
        name, gain = "layer_scale_parameters", components.ATTENTION_OUTPUT_NORM
        scales = parameter(name, (2, width), gain, Role.SCALED)
    names = f"{_SELF}query {_SELF}key {_SELF}value attention.output.dense"
    inner = inner_width(config, stage, default=3.0)
    return joined(
        norms("layernorm_before layernorm_after", width),
        attention(names, width, bias=bias),
        feed_forward("intermediate.dense output.dense", width, inner),
        parameter(f"{_SELF}rpb", (heads, rows, rows), part, Role.ADDED),
        scales,
    )
