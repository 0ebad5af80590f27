"""FocalNet: in the place of attention convolutions of growing size, whose sum by gates scales each square.

Names, shapes and defaults: huggingface/transformers `models/focalnet`.
"""

from __future__ import annotations

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, few, flag, sides, size, sizes
from minilm.architectures.staged_vision import Stage, doubling, inner_width, masked_images
from minilm.architectures.vision_parts import (
    IMAGES,
    MASKED_IMAGES,
    NOTHING,
    as_class,
    classifier,
    convolution,
    feed_forward,
    in_layers,
    joined,
    layer_scales,
    linear,
    norm,
    norms,
    under,
)
from minilm.architectures.vision_tower import Part
from minilm.ledger import components
from minilm.ledger.layout import Layout

_PATCH, _NORM = components.PATCH_EMBEDDING, components.EMBEDDING_NORM
_STEM, _BETWEEN = (7, 7), (3, 3)  # sides of overlapping squares


def layout(config: Config) -> Layout:
    """The tensors of a class of FocalNet for a config.json."""
    each = doubling(config, (2, 2, 6, 2))
    levels = sizes(config, "focal_levels", (2, 2, 2, 2), len(each))
    few("focal_levels", sum(levels))
    windows = sizes(config, "focal_windows", (3, 3, 3, 3), len(each))
    overlaps = flag(config, "use_conv_embed", False)
    patch = _STEM if overlaps else sides(config, "patch_size", 4)
    channels, projection = size(config, "num_channels", 3), "embeddings.patch_embeddings.projection"
    parts = [
        Part((), {"d": each[0].value}),
        convolution(projection, d, channels, patch, _PATCH, bias=True),
        norm("embeddings.norm", d, _NORM),
    ]
    for stage in each:
        prefix, width = f"encoder.stages.{stage.number}", stage.width
        kernels = [windows[stage.number] + 2 * level for level in range(levels[stage.number])]
        layer = under(f"{prefix}.layers.{{i}}.", _layer(config, stage, kernels))
        parts.append(in_layers(layer, stage.depth))
        if stage is not each[-1]:
            down, kernel = f"{prefix}.downsample", _BETWEEN if overlaps else (2, 2)
            parts.append(
                convolution(f"{down}.projection", 2 * width, width, kernel, _PATCH, bias=True)
            )
            parts.append(norm(f"{down}.norm", 2 * width, _NORM))
    last = each[-1].width
    body = joined(*parts, norm("layernorm", last, components.FINAL_NORM))
    whole = under("focalnet.", body)
    return as_class(
        config,
        {
            "Model": body,
            IMAGES: joined(whole, classifier(config, "classifier", last)),
            MASKED_IMAGES: joined(whole, masked_images(config, "focalnet", last)),
        },
    )


def _layer(config: Config, stage: Stage, kernels: list[int]) -> Part:
    width, gates, mixer = stage.width, components.MIXER_GATES, "modulation"
    inputs, outputs = components.MIXER_INPUT, components.MIXER_OUTPUT
    scales = flag(config, "use_layerscale", False)
    is_normed = flag(config, "use_post_layernorm_in_modulation", False)
    return joined(
        norms("norm1 norm2", width),
        linear(f"{mixer}.projection_in", 2 * width + len(kernels) + 1, width, inputs),
        *(
            convolution(f"{mixer}.focal_layers.{level}.0", width, 1, kernel, gates)
            for level, kernel in enumerate(kernels)
        ),
        convolution(f"{mixer}.projection_context", width, width, 1, gates, bias=True),
        linear(f"{mixer}.projection_out", width, width, outputs),
        feed_forward("mlp.fc1 mlp.fc2", width, inner_width(config, stage)),
        norm(f"{mixer}.layernorm", width, components.MIXER_NORM) if is_normed else NOTHING,
        layer_scales("gamma_1 gamma_2", width) if scales else NOTHING,
    )
