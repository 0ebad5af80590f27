"""SwiftFormer: stages of convolutions whose last layer attends, with one vector of weights for all keys.

Names, shapes and defaults: huggingface/transformers `models/swiftformer`.
"""

from __future__ import annotations

from minilm.architectures.config_fields import flag, size
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
    inner_width,
    layer_scales,
    listed,
    per_stage,
    plain,
    tensors_of,
)
from minilm.architectures.vit import sides
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role
from minilm.ledger.symbols import Polynomial, as_polynomial

_PATCH = components.PATCH_EMBEDDING


def layout(config: Config) -> Layout:
    """The tensors of a class of SwiftFormer for a config.json."""
    each = depths(config, "depths", (3, 3, 6, 4))
    widths = per_stage(config, "embed_dims", (48, 56, 112, 220), len(each))
    smaller = listed(config, "downsamples", (True,) * 4, len(each))
    body = _embeddings(config, widths[0])
    index = 0  # in the network, in which there is an embedding between stages
    for number, (depth, width) in enumerate(zip(each, widths, strict=True)):
        stage = Stage(number, depth, as_polynomial(width), width)
        body += _stage(config, f"encoder.network.{index}.blocks.", stage)
        index += 1
        if stage.number == len(each) - 1:
            break
        following = widths[number + 1]
        if flag({"downsamples": smaller[number]}, "downsamples", True) or width != following:
            kernel = sides(config, "down_patch_size", 3)
            maps = (
                Map("proj", _PATCH, (following, width, *kernel)),
                Map("norm", components.EMBEDDING_NORM, (following,)),
            )
            body += tensors_of(f"encoder.network.{index}.", maps)
            index += 1
    last = widths[-1]
    heads = (*classifier(last, "head"), *classifier(last, "dist_head"))
    gain = tensors_of("", (Map("norm", components.FINAL_NORM, (last,)),))
    first = "patch_embed.patch_embedding."
    return as_class(
        config,
        "swiftformer",
        body,
        {IMAGES: (*gain, *heads)},
        batch_norms=("norm", "norm1", f"{first}1", f"{first}4"),
    )


def _embeddings(config: Config, width: int) -> Tensors:
    half, channels, gain = width // 2, size(config, "num_channels", 3), components.EMBEDDING_NORM
    maps = (
        Map("0", _PATCH, (half, channels, 3, 3)),
        Map("1", gain, (half,)),
        Map("3", _PATCH, (width, half, 3, 3)),
        Map("4", gain, (width,)),
    )
    return tensors_of("patch_embed.patch_embedding.", maps)


def _stage(config: Config, blocks: str, stage: Stage) -> Tensors:
    """Layers of convolutions, and a last one that also attends."""
    last, width = f"{blocks}{stage.depth - 1}.", stage.width
    alone = stage._replace(depth=1)
    tensors: Tensors = ()
    if stage.depth > 1:
        others = stage._replace(depth=stage.depth - 1)
        tensors += _convolutions(f"{blocks}{{i}}.", others, inner_width(config, stage))
    tensors += _convolutions(f"{last}local_representation.", alone, width)
    tensors += tensors_of(
        last,
        (
            Map("attn.to_query", components.ATTENTION_QUERY, (width, width)),
            Map("attn.to_key", components.ATTENTION_KEY, (width, width)),
            Map("attn.proj", components.ATTENTION_VALUE, (width, width)),
            Map("attn.final", components.ATTENTION_OUTPUT, (width, width)),
            Map("linear.norm1", components.FEED_FORWARD_NORM, (width,)),
            *feed_forward("linear.fc1 linear.fc2", width, inner_width(config, stage), 1, 1),
        ),
    )
    tensors += (plain(f"{last}attn.w_g", components.ATTENTION_GATE, (width, 1)),)
    if flag(config, "use_layer_scale", True):
        tensors += layer_scales(f"{last}layer_scale_1 {last}layer_scale_2", alone, 1, 1)
    return tensors


def _convolutions(prefix: str, stage: Stage, inner: Polynomial | int) -> Tensors:
    """Over neighbours of each channel, and over the channels of each square."""
    width, depth = stage.width, stage.depth
    scale = plain(
        f"{prefix}layer_scale", components.MIXER_OUTPUT, (width, 1, 1), depth, Role.SCALED
    )
    maps = (
        Map("depth_wise_conv", components.MIXER_INPUT, (width, 1, 3, 3)),
        Map("norm", components.MIXER_NORM, (width,)),
        *feed_forward("point_wise_conv1 point_wise_conv2", width, inner, 1, 1),
    )
    return (*tensors_of(prefix, maps, depth), scale)
