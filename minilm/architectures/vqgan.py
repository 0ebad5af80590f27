"""VQGAN, which turns a picture into words of a vocabulary of its own, and with a decoder back.

Levels of convolutions with residuals, each of half the size; where ``attends`` says so they attend too.
It is used once a picture and has no letters: every level has sizes of its own. Names, shapes and defaults:
huggingface/transformers `models/{janus,chameleon}`.
"""

from __future__ import annotations

from collections.abc import Callable

from minilm.architectures.config_fields import Config, few, flag, layers, size, sizes
from minilm.architectures.vision_tower import matrix, vector, without_bias
from minilm.ledger.layout import Tensors

Attends = Callable[[int], bool]  # of a level


def levels(config: Config) -> list[int]:
    """The width of each level."""
    base = size(config, "base_channels", 128)
    return [base * times for times in sizes(config, "channel_multiplier", (1, 1, 2, 2, 4))]


def _residuals(config: Config, number: int) -> int:
    """How many each of ``number`` levels has."""
    count = layers(config, "num_res_blocks", 2)
    few("num_res_blocks", count * number)
    return count


def encoder(config: Config, name: str, attends: Attends, *, attends_last: bool = True) -> Tensors:
    """To the latent picture; ``attends_last``: between the last two residuals."""
    widths = levels(config)
    count = _residuals(config, len(widths))
    width = size(config, "base_channels", 128)
    tensors = [*_convolution(f"{name}.conv_in", width, size(config, "in_channels", 3))]
    for level, outputs in enumerate(widths):
        down = f"{name}.down.{level}"
        for number in range(count):
            tensors += _residual(f"{down}.block.{number}", width, outputs)
            tensors += _attention(f"{down}.attn.{number}", outputs) if attends(level) else ()
            width = outputs
        if level < len(widths) - 1:
            tensors += _convolution(f"{down}.downsample.conv", width, width)
    latent = size(config, "latent_channels", 256)
    latent *= 2 if flag(config, "double_latent", False) else 1
    return (
        *tensors,
        *_middle(f"{name}.mid", width, attends_last),
        *vector(f"{name}.norm_out", width),
        *_convolution(f"{name}.conv_out", latent, width),
    )


def decoder(config: Config, name: str) -> Tensors:
    """From the latent picture; the smallest level attends."""
    widths = levels(config)[::-1]
    count = _residuals(config, len(widths))
    width, latent = widths[0], size(config, "latent_channels", 256)
    tensors = [
        *_convolution(f"{name}.conv_in", width, latent),
        *_middle(f"{name}.mid", width, True),
    ]
    for level, outputs in enumerate(widths):
        up = f"{name}.up.{level}"
        for number in range(count + 1):
            tensors += _residual(f"{up}.block.{number}", width, outputs)
            tensors += _attention(f"{up}.attn.{number}", outputs) if level == 0 else ()
            width = outputs
        if level < len(widths) - 1:
            tensors += _convolution(f"{up}.upsample.conv", width, width)
    return (
        *tensors,
        *vector(f"{name}.norm_out", width),
        *_convolution(f"{name}.conv_out", size(config, "out_channels", 3), width),
    )


def codebook(config: Config, name: str, *, words: int, width: int) -> Tensors:
    """The vocabulary, and maps to its width and back; the defaults are ``words`` and ``width``."""
    inner, latent = size(config, "embed_dim", width), size(config, "latent_channels", 256)
    return (
        without_bias(f"{name}.quantize.embedding", size(config, "num_embeddings", words), inner),
        *matrix(f"{name}.quant_conv", (inner, latent, 1, 1)),
        *matrix(f"{name}.post_quant_conv", (latent, inner, 1, 1)),
    )


def _convolution(name: str, outputs: int, inputs: int) -> Tensors:
    return matrix(name, (outputs, inputs, 3, 3))


def _residual(name: str, inputs: int, outputs: int) -> Tensors:
    return (
        *vector(f"{name}.norm1", inputs),
        *_convolution(f"{name}.conv1", outputs, inputs),
        *vector(f"{name}.norm2", outputs),
        *_convolution(f"{name}.conv2", outputs, outputs),
        *(matrix(f"{name}.nin_shortcut", (outputs, inputs, 1, 1)) if inputs != outputs else ()),
    )


def _attention(name: str, width: int) -> Tensors:
    maps = (matrix(f"{name}.{n}", (width, width, 1, 1)) for n in ("q", "k", "v", "proj_out"))
    return (*vector(f"{name}.norm", width), *(t for pair in maps for t in pair))


def _middle(name: str, width: int, attends: bool) -> Tensors:
    return (
        *_residual(f"{name}.block_1", width, width),
        *(_attention(f"{name}.attn_1", width) if attends else ()),
        *_residual(f"{name}.block_2", width, width),
    )
