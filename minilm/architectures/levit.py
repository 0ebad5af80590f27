"""LeViT: convolutions, then three stages of attention in which each matrix has a batch norm of its own.

Between stages attention itself makes the picture smaller, with as many queries as that has squares. Names,
shapes and defaults: huggingface/transformers `models/levit`.
"""

from __future__ import annotations

from minilm.architectures.config_fields import size
from minilm.architectures.staged_vision import (
    IMAGES,
    Config,
    Map,
    Tensors,
    as_class,
    depths,
    numbered,
    per_stage,
    plain,
    tensors_of,
)
from minilm.architectures.task_heads import C
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role

_STAGES = 3
_DOWN_RATIO, _DOWN_INNER = 4, 2  # of values to keys, and of the feed-forward, between stages


def layout(config: Config) -> Layout:
    """The tensors of a class of LeViT for a config.json."""
    each = depths(config, "depths", (4, 4, 4))
    if len(each) != _STAGES:
        raise ConfigError("config.json: depths", f"{each}", f"{_STAGES} numbers of layers")
    widths = per_stage(config, "hidden_sizes", (128, 256, 384), _STAGES)
    heads = per_stage(config, "num_attention_heads", (4, 8, 12), _STAGES)
    keys = per_stage(config, "key_dim", (16, 16, 16), _STAGES)
    ratios = per_stage(config, "attention_ratio", (2, 2, 2), _STAGES)
    inner = per_stage(config, "mlp_ratio", (2, 2, 2), _STAGES)
    side = size(config, "image_size", 224) // size(config, "patch_size", 16)
    body = _embeddings(config, widths[0])
    for stage, (depth, width) in enumerate(zip(each, widths, strict=True)):
        layers = f"encoder.stages.{stage}.layers"
        key, value = keys[stage] * heads[stage], keys[stage] * heads[stage] * ratios[stage]
        attention = (
            *_normed("queries_keys_values", 2 * key + value, width),
            *_normed("projection", width, value, components.ATTENTION_OUTPUT),
        )
        block = f"{layers}.{{i}}.module."
        even, odd = range(0, 2 * depth, 2), range(1, 2 * depth, 2)
        table = _biases(block, heads[stage], side)
        body += numbered((*table, *tensors_of(block, attention)), even)
        body += numbered(tensors_of(block, _feed_forward(width, inner[stage] * width)), odd)
        if stage < _STAGES - 1:
            body += _down(layers, 2 * depth, widths[stage : stage + 2], keys[0], side)
            side = (side - 1) // 2 + 1
    return as_class(
        config,
        "levit",
        body,
        {
            IMAGES: _classifier("classifier", widths[-1]),
            f"{IMAGES}WithTeacher": (
                *_classifier("classifier", widths[-1]),
                *_classifier("classifier_distill", widths[-1]),
            ),
        },
        batch_norms=("batch_norm",),
    )


def _embeddings(config: Config, width: int) -> Tensors:
    """Four convolutions that double the width."""
    part, kernel = components.PATCH_EMBEDDING, size(config, "kernel_size", 3)
    inputs = size(config, "num_channels", 3)
    tensors: Tensors = ()
    for layer, share in enumerate((8, 4, 2, 1), start=1):
        outputs = width // share
        maps = (
            Map("convolution", part, (outputs, inputs, kernel, kernel), bias=False),
            Map("batch_norm", components.EMBEDDING_NORM, (outputs,)),
        )
        tensors += tensors_of(f"patch_embeddings.embedding_layer_{layer}.", maps)
        inputs = outputs
    return tensors


def _normed(
    name: str, outputs: int, inputs: int, part: str = components.ATTENTION_QUERY_KEY_VALUE
) -> tuple[Map, ...]:
    """A matrix and its batch norm in the place of a bias."""
    return (
        Map(f"{name}.linear", part, (outputs, inputs), bias=False),
        Map(f"{name}.batch_norm", part, (outputs,)),
    )


def _feed_forward(width: int, inner: int) -> tuple[Map, ...]:
    return (
        *_normed("linear_up", inner, width, components.FEED_FORWARD_UP),
        *_normed("linear_down", width, inner, components.FEED_FORWARD_DOWN),
    )


def _biases(block: str, heads: int, side: int) -> Tensors:
    """One for each distance between two squares, in either direction."""
    name, part = f"{block}attention_biases", components.POSITION_EMBEDDING
    return (plain(name, part, (heads, side**2), role=Role.ADDED),)


def _down(layers: str, index: int, widths: list[int], key_dim: int, side: int) -> Tensors:
    """Attention to a smaller picture of the next width, and a feed-forward."""
    inputs, outputs = widths
    heads = inputs // key_dim
    key, value = key_dim * heads, _DOWN_RATIO * key_dim * heads
    maps = (
        *_normed("keys_values", key + value, inputs, components.ATTENTION_KEY_VALUE),
        *_normed("queries", key, inputs, components.ATTENTION_QUERY),
        *_normed("projection", outputs, value, components.ATTENTION_OUTPUT),
    )
    block = f"{layers}.{index}."
    return (
        *_biases(block, heads, side),
        *tensors_of(block, maps),
        *tensors_of(f"{layers}.{index + 1}.module.", _feed_forward(outputs, _DOWN_INNER * outputs)),
    )


def _classifier(name: str, width: int) -> Tensors:
    part = components.CLASSIFIER
    return tensors_of(
        f"{name}.", (Map("batch_norm", part, (width,)), Map("linear", part, (C, width)))
    )
