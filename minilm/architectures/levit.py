"""LeViT: convolutions, then three stages of attention in which each matrix has a batch norm of its own.

Between stages attention itself makes the picture smaller, with as many queries as that has squares. Names,
shapes and defaults: huggingface/transformers `models/levit`.
"""

from __future__ import annotations

from minilm.architectures.config_fields import Config, depths, size, sizes
from minilm.architectures.vision_parts import (
    IMAGES,
    as_class,
    batch_norm,
    classifier,
    convolution,
    in_layers,
    joined,
    linear,
    parameter,
    under,
)
from minilm.architectures.vision_tower import Part
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
    widths = sizes(config, "hidden_sizes", (128, 256, 384), _STAGES)
    heads = sizes(config, "num_attention_heads", (4, 8, 12), _STAGES)
    keys = sizes(config, "key_dim", (16, 16, 16), _STAGES)
    ratios = sizes(config, "attention_ratio", (2, 2, 2), _STAGES)
    inner = sizes(config, "mlp_ratio", (2, 2, 2), _STAGES)
    side = size(config, "image_size", 224) // size(config, "patch_size", 16)
    parts = [_embeddings(config, widths[0])]
    for stage, (depth, width) in enumerate(zip(each, widths, strict=True)):
        layers = f"encoder.stages.{stage}.layers"
        key, value = keys[stage] * heads[stage], keys[stage] * heads[stage] * ratios[stage]
        attention = joined(
            _biases(heads[stage], side),
            _normed("queries_keys_values", 2 * key + value, width),
            _normed("projection", width, value, components.ATTENTION_OUTPUT),
        )
        block, forward = f"{layers}.{{i}}.module.", _feed_forward(width, inner[stage] * width)
        parts.append(in_layers(under(block, attention), depth, range(0, 2 * depth, 2)))
        parts.append(in_layers(under(block, forward), depth, range(1, 2 * depth, 2)))
        if stage < _STAGES - 1:
            parts.append(_down(layers, 2 * depth, widths[stage : stage + 2], keys[0], side))
            side = (side - 1) // 2 + 1
    body = joined(*parts)
    whole, last = under("levit.", body), widths[-1]
    one = joined(whole, _classifier(config, "classifier", last))
    taught = joined(one, _classifier(config, "classifier_distill", last))
    return as_class(config, {"Model": body, IMAGES: one, f"{IMAGES}WithTeacher": taught})


def _embeddings(config: Config, width: int) -> Part:
    """Four convolutions that double the width."""
    kernel, inputs = size(config, "kernel_size", 3), size(config, "num_channels", 3)
    parts = []
    for layer, share in enumerate((8, 4, 2, 1), start=1):
        name, outputs = f"patch_embeddings.embedding_layer_{layer}", width // share
        part = components.PATCH_EMBEDDING
        parts.append(convolution(f"{name}.convolution", outputs, inputs, kernel, part))
        parts.append(batch_norm(f"{name}.batch_norm", outputs, components.EMBEDDING_NORM))
        inputs = outputs
    return joined(*parts)


def _normed(
    name: str, outputs: int, inputs: int, part: str = components.ATTENTION_QUERY_KEY_VALUE
) -> Part:
    """A matrix and its batch norm in the place of a bias."""
    return joined(
        linear(f"{name}.linear", outputs, inputs, part, bias=False),
        batch_norm(f"{name}.batch_norm", outputs, part),
    )


def _feed_forward(width: int, inner: int) -> Part:
    return joined(
        _normed("linear_up", inner, width, components.FEED_FORWARD_UP),
        _normed("linear_down", width, inner, components.FEED_FORWARD_DOWN),
    )


def _biases(heads: int, side: int) -> Part:
    """One for each distance between two squares, in either direction."""
    part = components.POSITION_EMBEDDING
    return parameter("attention_biases", (heads, side**2), part, Role.ADDED)


def _down(layers: str, index: int, widths: list[int], key_dim: int, side: int) -> Part:
    """Attention to a smaller picture of the next width, and a feed-forward."""
    inputs, outputs = widths
    heads = inputs // key_dim
    key, value = key_dim * heads, _DOWN_RATIO * key_dim * heads
    return joined(
        under(
            f"{layers}.{index}.",
            _biases(heads, side),
            _normed("keys_values", key + value, inputs, components.ATTENTION_KEY_VALUE),
            _normed("queries", key, inputs, components.ATTENTION_QUERY),
            _normed("projection", outputs, value, components.ATTENTION_OUTPUT),
        ),
        under(f"{layers}.{index + 1}.module.", _feed_forward(outputs, _DOWN_INNER * outputs)),
    )


def _classifier(config: Config, name: str, width: int) -> Part:
    gain = batch_norm(f"{name}.batch_norm", width, components.CLASSIFIER)
    return joined(gain, classifier(config, f"{name}.linear", width))
