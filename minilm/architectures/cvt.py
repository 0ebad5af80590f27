"""CvT: stages of attention whose queries, keys and values are convolved first, and no positions.

Names, shapes and defaults: huggingface/transformers `models/cvt`.
"""

from __future__ import annotations

from minilm.architectures.config_fields import flag, number, size
from minilm.architectures.staged_vision import (
    IMAGES,
    Config,
    Map,
    Stage,
    Tensors,
    as_class,
    classifier,
    depths,
    feed_forward,
    heads_of,
    listed,
    multiple,
    norms,
    per_stage,
    plain,
    projections,
    tensors_of,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import as_polynomial

_CONVOLVED = "convolution_projection"


def layout(config: Config) -> Layout:
    """The tensors of a class of CvT for a config.json."""
    each = depths(config, "depth", (1, 2, 10))
    widths = per_stage(config, "embed_dim", (64, 192, 384), len(each))
    kernels = per_stage(config, "patch_sizes", (7, 3, 3), len(each))
    heads_of(config, "num_heads", (1, 3, 6), widths)
    tokens = listed(config, "cls_token", (False, False, True), len(each))
    inputs, part = size(config, "num_channels", 3), components.PATCH_EMBEDDING
    body: Tensors = ()
    for index, (depth, width, kernel) in enumerate(zip(each, widths, kernels, strict=True)):
        prefix = f"encoder.stages.{index}."
        embedding = (
            Map("projection", part, (width, inputs, kernel, kernel)),
            Map("normalization", components.EMBEDDING_NORM, (width,)),
        )
        if flag({"cls_token": tokens[index]}, "cls_token", False):
            body += (plain(f"{prefix}cls_token", part, (1, 1, widths[-1])),)
        body += tensors_of(f"{prefix}embedding.convolution_embeddings.", embedding)
        maps = _block(config, Stage(index, depth, as_polynomial(width), width))
        body += tensors_of(f"{prefix}layers.{{i}}.", maps, depth)
        inputs = width
    gain = Map("layernorm", components.FINAL_NORM, (inputs,))
    return as_class(
        config,
        "cvt",
        body,
        {IMAGES: (*tensors_of("", (gain,)), *classifier(inputs))},
        batch_norms=(f"{_CONVOLVED}.normalization",),
    )


def _block(config: Config, stage: Stage) -> tuple[Map, ...]:
    count, width = stage.number + 1, stage.width
    inside = "attention.attention."
    method = listed(config, "qkv_projection_method", ("dw_bn",) * 3, count)[-1]
    kernel = per_stage(config, "kernel_qkv", (3, 3, 3), count)[-1]
    bias = listed(config, "qkv_bias", (True,) * 3, count)[-1]
    ratio = listed(config, "mlp_ratio", (4.0,) * 3, count)[-1]
    names = ("query", "key", "value")
    parts = (components.ATTENTION_QUERY, components.ATTENTION_KEY, components.ATTENTION_VALUE)
    convolved = (
        each
        for name, part in zip(names, parts, strict=True)
        for prefix in (f"{inside}{_CONVOLVED}_{name}.{_CONVOLVED}.",)
        for each in (
            Map(f"{prefix}convolution", part, (width, 1, kernel, kernel), bias=False),
            Map(f"{prefix}normalization", part, (width,)),
        )
    )
    inner = multiple(
        width, stage.value, number({"mlp_ratio": ratio}, "mlp_ratio", 4.0), "mlp_ratio"
    )
    maps = " ".join(f"{inside}projection_{name}" for name in names)
    return (
        *norms("layernorm_before layernorm_after", width),
        *(convolved if method == "dw_bn" else ()),
        *projections(
            f"{maps} attention.output.dense",
            width,
            bias=flag({"qkv_bias": bias}, "qkv_bias", True),
        ),
        *feed_forward("intermediate.dense output.dense", width, inner),
    )
