"""FocalNet: in the place of attention convolutions of growing size, whose sum by gates scales each square.

Names, shapes and defaults: huggingface/transformers `models/focalnet`.
"""

from __future__ import annotations

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import flag, size
from minilm.architectures.staged_vision import (
    IMAGES,
    MASKED_IMAGES,
    Config,
    Map,
    Stage,
    Tensors,
    as_class,
    classifier,
    doubling,
    feed_forward,
    inner_width,
    layer_scales,
    masked_images,
    norms,
    per_stage,
    tensors_of,
)
from minilm.architectures.vit import sides
from minilm.ledger import components
from minilm.ledger.layout import Layout

_PATCH = components.PATCH_EMBEDDING
_STEM, _BETWEEN = (7, 7), (3, 3)  # sides of overlapping squares


def layout(config: Config) -> Layout:
    """The tensors of a class of FocalNet for a config.json."""
    each = doubling(config, (2, 2, 6, 2))
    levels = per_stage(config, "focal_levels", (2, 2, 2, 2), len(each))
    windows = per_stage(config, "focal_windows", (3, 3, 3, 3), len(each))
    overlaps = flag(config, "use_conv_embed", False)
    patch = _STEM if overlaps else sides(config, "patch_size", 4)
    pixels = (d, size(config, "num_channels", 3), *patch)
    gain = components.EMBEDDING_NORM
    body = tensors_of(
        "embeddings.", (Map("patch_embeddings.projection", _PATCH, pixels), Map("norm", gain, (d,)))
    )
    for stage in each:
        prefix, width = f"encoder.stages.{stage.number}.", stage.width
        kernels = [windows[stage.number] + 2 * level for level in range(levels[stage.number])]
        body += _layers(config, f"{prefix}layers.{{i}}.", stage, kernels)
        if stage is not each[-1]:
            shape = (2 * width, width, *(_BETWEEN if overlaps else (2, 2)))
            merged = (Map("projection", _PATCH, shape), Map("norm", gain, (2 * width,)))
            body += tensors_of(f"{prefix}downsample.", merged)
    last = each[-1].width
    body += tensors_of("", (Map("layernorm", components.FINAL_NORM, (last,)),))
    masked = masked_images(config, "focalnet", last)
    classes = {IMAGES: classifier(last), MASKED_IMAGES: masked}
    return as_class(config, "focalnet", body, classes, symbols={"d": each[0].value})


def _layers(config: Config, prefix: str, stage: Stage, kernels: list[int]) -> Tensors:
    width, gates = stage.width, components.MIXER_GATES
    maps = [
        *norms("norm1 norm2", width),
        Map(
            "modulation.projection_in",
            components.MIXER_INPUT,
            (2 * width + len(kernels) + 1, width),
        ),
        *(
            Map(f"modulation.focal_layers.{level}.0", gates, (width, 1, kernel, kernel), bias=False)
            for level, kernel in enumerate(kernels)
        ),
        Map("modulation.projection_context", gates, (width, width, 1, 1)),
        Map("modulation.projection_out", components.MIXER_OUTPUT, (width, width)),
        *feed_forward("mlp.fc1 mlp.fc2", width, inner_width(config, stage)),
    ]
    if flag(config, "use_post_layernorm_in_modulation", False):
        maps.append(Map("modulation.layernorm", components.MIXER_NORM, (width,)))
    tensors = tensors_of(prefix, maps, stage.depth)
    if not flag(config, "use_layerscale", False):
        return tensors
    return (*tensors, *layer_scales(f"{prefix}gamma_1 {prefix}gamma_2", stage))
