"""ConvNeXt, 1 and 2: wide filters of each channel by itself, then a feed-forward at every place.

Names, shapes and defaults: huggingface/transformers `models/{convnext,convnextv2}`.
"""

from __future__ import annotations

from minilm.architectures.config_fields import (
    Config,
    depths,
    field_name,
    layers,
    number,
    sides,
    size,
    sizes,
)
from minilm.architectures.vision_parts import (
    BACKBONE,
    IMAGES,
    as_class,
    classifier,
    convolution,
    joined,
    linear,
    norm,
    output_norms,
    repeated,
    under,
)
from minilm.architectures.vision_tower import Part, once
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family = config["model_type"]
    widths = sizes(config, "hidden_sizes", (96, 192, 384, 768))
    trunk = convnext(config)
    body = joined(trunk, norm("layernorm", widths[-1], components.FINAL_NORM))
    head = classifier(config, "classifier", widths[-1])
    return as_class(
        config,
        {
            "Model": body,
            IMAGES: joined(under(f"{family}.", body), head),
            BACKBONE: joined(trunk, output_norms(config, widths, (3, 3, 9, 3))),
        },
    )


def convnext(config: Config) -> Part:
    """The stem and the stages."""
    count = layers(config, field_name(config, "num_stages", "num_hidden_layers"), 4)
    widths = sizes(config, "hidden_sizes", (96, 192, 384, 768), count)
    numbers = depths(config, "depths", (3, 3, 9, 3), count)
    patch, channels = sides(config, "patch_size", 4), size(config, "num_channels", 3)
    first, stem = "embeddings.patch_embeddings", components.STEM
    parts = [
        convolution(first, widths[0], channels, patch, bias=True, component=stem),
        norm("embeddings.layernorm", widths[0]),
    ]
    for index, (width, depth) in enumerate(zip(widths, numbers, strict=True)):
        name = f"encoder.stages.{index}"
        if index:
            before, down = widths[index - 1], f"{name}.downsampling_layer"
            part = components.DOWNSAMPLING
            parts.append(norm(f"{down}.0", before))
            parts.append(convolution(f"{down}.1", width, before, 2, bias=True, component=part))
        parts.append(repeated(_layer(config, f"{name}.layers.{{i}}", width), index + 1, depth))
    return joined(*parts)


def _layer(config: Config, name: str, width: int) -> Part:
    inner, apart = 4 * width, components.DEPTHWISE_CONVOLUTIONS
    part = joined(
        convolution(f"{name}.dwconv", width, 1, 7, bias=True, component=apart),
        norm(f"{name}.layernorm", width),
        linear(f"{name}.pwconv1", inner, width, components.FEED_FORWARD_UP),
        linear(f"{name}.pwconv2", width, inner, components.FEED_FORWARD_DOWN),
    )
    if config["model_type"] == "convnextv2":
        shape, response = (1, 1, 1, inner), components.FEED_FORWARD_NORM
        own = [
            once(f"{name}.grn.weight", shape, Role.SCALED, component=response),
            once(f"{name}.grn.bias", shape, Role.ADDED, component=response),
        ]
    elif number(config, "layer_scale_init_value", 1e-6) > 0:
        scale, out = f"{name}.layer_scale_parameter", components.FEED_FORWARD_OUTPUT_NORM
        own = [once(scale, (width,), Role.SCALED, component=out)]
    else:
        own = []
    return joined(part, Part(tuple(own)))
