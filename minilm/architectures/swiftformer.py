"""SwiftFormer: stages of convolutions whose last layer attends, with one vector of weights for all keys.

Names, shapes and defaults: huggingface/transformers `models/swiftformer`.
"""

from __future__ import annotations

from minilm.architectures.config_fields import Config, depths, flag, listed, sides, size, sizes
from minilm.architectures.staged_vision import Stage, inner_width, stages
from minilm.architectures.vision_parts import (
    IMAGES,
    NOTHING,
    as_class,
    batch_norm,
    classifier,
    convolution,
    feed_forward,
    in_layers,
    joined,
    layer_scales,
    linear,
    parameter,
    under,
)
from minilm.architectures.vision_tower import Part, Width
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role

_PATCH, _NORM = components.PATCH_EMBEDDING, components.EMBEDDING_NORM


def layout(config: Config) -> Layout:
    """The tensors of a class of SwiftFormer for a config.json."""
    layers = depths(config, "depths", (3, 3, 6, 4))
    widths = sizes(config, "embed_dims", (48, 56, 112, 220), len(layers))
    smaller = listed(config, "downsamples", (True,) * 4, len(layers))
    parts = [_embeddings(config, widths[0])]
    index = 0  # in the network, in which there is an embedding between stages
    for stage in stages(layers, widths):
        width, name = stage.value, f"encoder.network.{index}.blocks."
        parts.append(under(name, _stage(config, stage)))
        index += 1
        if stage.number == len(layers) - 1:
            break
        following = widths[stage.number + 1]
        is_smaller = flag({"downsamples": smaller[stage.number]}, "downsamples", True)
        if is_smaller or width != following:
            down, kernel = f"encoder.network.{index}", sides(config, "down_patch_size", 3)
            projection = convolution(f"{down}.proj", following, width, kernel, _PATCH, bias=True)
            parts += [projection, batch_norm(f"{down}.norm", following, _NORM)]
            index += 1
    body, last = joined(*parts), widths[-1]
    images = joined(
        under("swiftformer.", body),
        batch_norm("norm", last, components.FINAL_NORM),
        classifier(config, "head", last),
        classifier(config, "dist_head", last),
    )
    return as_class(config, {"Model": body, IMAGES: images})


def _embeddings(config: Config, width: int) -> Part:
    half, channels = width // 2, size(config, "num_channels", 3)
    return under(
        "patch_embed.patch_embedding.",
        convolution("0", half, channels, 3, _PATCH, bias=True),
        batch_norm("1", half, _NORM),
        convolution("3", width, half, 3, _PATCH, bias=True),
        batch_norm("4", width, _NORM),
    )


def _stage(config: Config, stage: Stage) -> Part:
    """Layers of convolutions, and a last one that also attends."""
    width, inner, others = stage.width, inner_width(config, stage), stage.depth - 1
    convolved = under("{i}.", _convolutions(width, inner))
    scales = layer_scales("layer_scale_1 layer_scale_2", width, 1, 1)
    return joined(
        in_layers(convolved, others),
        under(
            f"{others}.",
            under("local_representation.", _convolutions(width, width)),
            linear("attn.to_query", width, width, components.ATTENTION_QUERY),
            linear("attn.to_key", width, width, components.ATTENTION_KEY),
            linear("attn.proj", width, width, components.ATTENTION_VALUE),
            linear("attn.final", width, width, components.ATTENTION_OUTPUT),
            batch_norm("linear.norm1", width, components.FEED_FORWARD_NORM),
            feed_forward("linear.fc1 linear.fc2", width, inner, convolves=True),
            parameter("attn.w_g", (width, 1), components.ATTENTION_GATE),
            scales if flag(config, "use_layer_scale", True) else NOTHING,
        ),
    )


def _convolutions(width: Width, inner: Width) -> Part:
    """Over neighbours of each channel, and over the channels of each square."""
    part = components.MIXER_OUTPUT
    return joined(
        convolution("depth_wise_conv", width, 1, 3, components.MIXER_INPUT, bias=True),
        batch_norm("norm", width, components.MIXER_NORM),
        feed_forward("point_wise_conv1 point_wise_conv2", width, inner, convolves=True),
        parameter("layer_scale", (width, 1, 1), part, Role.SCALED),
    )
