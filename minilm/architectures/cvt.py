"""CvT: stages of attention whose queries, keys and values are convolved first, and no positions.

Names, shapes and defaults: huggingface/transformers `models/cvt`.
"""

from __future__ import annotations

from minilm.architectures.config_fields import Config, choice, depths, flag, listed, size, sizes
from minilm.architectures.staged_vision import Stage, heads_of, inner_width, stages
from minilm.architectures.vision_parts import (
    IMAGES,
    NOTHING,
    as_class,
    attention,
    batch_norm,
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
from minilm.architectures.vision_tower import Part, Width
from minilm.ledger import components
from minilm.ledger.layout import Layout

_PATCH = components.PATCH_EMBEDDING


def layout(config: Config) -> Layout:
    """The tensors of a class of CvT for a config.json."""
    layers = depths(config, "depth", (1, 2, 10))
    widths = sizes(config, "embed_dim", (64, 192, 384), len(layers))
    kernels = sizes(config, "patch_sizes", (7, 3, 3), len(layers))
    heads_of(config, "num_heads", (1, 3, 6), widths)
    tokens = listed(config, "cls_token", (False, False, True), len(layers))
    inputs, last = size(config, "num_channels", 3), widths[-1]
    parts = []
    for stage in stages(layers, widths):
        prefix, width, kernel = f"encoder.stages.{stage.number}", stage.width, kernels[stage.number]
        first = f"{prefix}.embedding.convolution_embeddings"
        if flag({"cls_token": tokens[stage.number]}, "cls_token", False):
            parts.append(parameter(f"{prefix}.cls_token", (1, 1, last), _PATCH))
        parts += [
            convolution(f"{first}.projection", width, inputs, kernel, _PATCH, bias=True),
            norm(f"{first}.normalization", width, components.EMBEDDING_NORM),
            in_layers(under(f"{prefix}.layers.{{i}}.", _layer(config, stage)), stage.depth),
        ]
        inputs = stage.value
    body = joined(*parts)
    images = joined(
        under("cvt.", body),
        norm("layernorm", last, components.FINAL_NORM),
        classifier(config, "classifier", last),
    )
    return as_class(config, {"Model": body, IMAGES: images})


def _layer(config: Config, stage: Stage) -> Part:
    count, width = stage.number + 1, stage.width
    inside = "attention.attention."
    name = "qkv_projection_method"
    method = listed(config, name, ("dw_bn",) * 3, count)[-1]
    kernel = sizes(config, "kernel_qkv", (3, 3, 3), count)[-1]
    bias = flag({"qkv_bias": listed(config, "qkv_bias", (True,) * 3, count)[-1]}, "qkv_bias", True)
    ratio = listed(config, "mlp_ratio", (4.0,) * 3, count)[-1]
    kinds = {
        "query": components.ATTENTION_QUERY,
        "key": components.ATTENTION_KEY,
        "value": components.ATTENTION_VALUE,
    }
    convolved = (
        _convolved(f"{inside}convolution_projection_{kind}", width, kernel, part)
        for kind, part in kinds.items()
    )
    convolves = choice({name: method}, name, "dw_bn", ("dw_bn", "avg", "linear")) == "dw_bn"
    names = " ".join(f"{inside}projection_{kind}" for kind in kinds)
    inner = inner_width({"mlp_ratio": ratio}, stage)
    return joined(
        norms("layernorm_before layernorm_after", width),
        joined(*convolved) if convolves else NOTHING,
        attention(f"{names} attention.output.dense", width, bias=bias),
        feed_forward("intermediate.dense output.dense", width, inner),
    )


def _convolved(name: str, width: Width, kernel: int, part: str) -> Part:
    own = f"{name}.convolution_projection"
    return joined(
        convolution(f"{own}.convolution", width, 1, kernel, part),
        batch_norm(f"{own}.normalization", width, part),
    )
