"""What attending networks have, beside vision_parts.py, whose stages have fewer, wider squares each time.

Widths that double are told in the letter of the first one, others stand as numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, depths, number, scaled_size, size, sizes
from minilm.architectures.vision_parts import convolution, joined, parameter
from minilm.architectures.vision_tower import Part, Width
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.symbols import Polynomial, as_polynomial


class Stage(NamedTuple):
    """The ``number`` of a stage, its layers, and the width of its squares, with its ``value``."""

    number: int
    depth: int
    width: Polynomial
    value: int


def stages(layers: Sequence[int], widths: Sequence[int]) -> list[Stage]:
    """Stages of these numbers of layers and widths."""
    return [
        Stage(number, depth, as_polynomial(width), width)
        for number, (depth, width) in enumerate(zip(layers, widths, strict=True))
    ]


def doubling(config: Config, layers: Sequence[int], width: int = 96) -> list[Stage]:
    """Stages of which each is twice as wide, the first d: `embed_dim`."""
    base = size(config, "embed_dim", width)
    return [
        Stage(number, depth, 2**number * d, 2**number * base)
        for number, depth in enumerate(depths(config, "depths", layers))
    ]


def heads_of(config: Config, name: str, default: Sequence[int], widths: Sequence[int]) -> list[int]:
    """How many heads attend in each stage: a divisor of its width."""
    heads = sizes(config, name, default, len(widths))
    for count, width in zip(heads, widths, strict=True):
        if width % count:
            raise ConfigError(f"config.json: {name}", f"{count} heads", f"a divisor of {width}")
    return heads


def inner_width(
    config: Config, stage: Stage, name: str = "mlp_ratio", default: float = 4.0
) -> Width:
    """That of a stage's feed-forward: a multiple of its own, rounded down."""
    ratio = number(config, name, default)
    rounded = scaled_size(config, name, default, stage.value)
    return int(ratio) * stage.width if ratio == int(ratio) else rounded


def masked_images(config: Config, prefix: str, width: Width) -> Part:
    """What predicts the pixels of masked squares: a token in their place, and a map to what it stands for."""
    pixels = size(config, "encoder_stride", 32) ** 2 * size(config, "num_channels", 3)
    token = f"{prefix}.embeddings.mask_token"
    return joined(
        parameter(token, (1, 1, d), components.PATCH_EMBEDDING),
        convolution("decoder.0", pixels, width, component=components.LM_HEAD, bias=True),
    )
