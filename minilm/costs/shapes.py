"""Shapes of about so many parameters, in multiples that matrix units like, counted exactly.

d_model and d_feed_forward are multiples of 128, heads 64 or 128 wide and the vocabulary a multiple of 64:
tensor cores are used best where the sides of 16-bit matrices are multiples of 64 elements on an A100 (NVIDIA,
"Matrix Multiplication Background User's Guide", section 4). Wider models have a number of heads that 4 or 8
tensor-parallel ranks divide. d_model / num_layers is within 32 to 160, a range over which the loss changes
little (Kaplan et al. 2020, arXiv:2001.08361, figure 5) and in which GPT-3's models are (Brown et al. 2020,
arXiv:2005.14165, table 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minilm.config import ModelConfig
from minilm.errors import InputError

VOCABULARY_MULTIPLE = 64
NARROWEST, WIDEST = 128, 32768
ASPECTS = (32, 160)  # d_model / num_layers
# GPT-3's models are around this one, from 43 to 128; twice or half as much counts as a percent of error.
USUAL_ASPECT, WORTH_OF_DOUBLE = 80, 0.01
NUM_SHAPES = 5


@dataclass(frozen=True)
class Shape:
    """A model and its exact number of parameters, off by ``error`` (relative) from what was wished."""

    config: ModelConfig
    parameters: int
    error: float


def propose_shapes(
    wish: int,
    count: Callable[[ModelConfig], int],
    *,
    vocab_size: int,
    context_length: int,
    tied: bool,
) -> list[Shape]:
    """The best shapes of ``wish`` parameters, the best first, one for each width.

    ``count`` is the ledger's exact count of a configuration. They are stock GPT-NeoX shapes (minilm's
    default), with the head ``tied`` or not. Raises InputError where no width gives a model of that size.
    """
    vocab_size = -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    shapes = []
    for d_model in _widths():

        def config(num_layers: int, d_model: int = d_model) -> ModelConfig:
            return ModelConfig(
                vocab_size=vocab_size,
                context_length=context_length,
                num_layers=num_layers,
                d_model=d_model,
                num_heads=d_model // (128 if d_model >= 2048 else 64),
                tied_embeddings=tied,
            )

        one, two = count(config(1)), count(config(2))
        if one > 2 * wish:
            break
        nearest = max(1, round((wish - one) / (two - one)) + 1)
        if not ASPECTS[0] <= d_model / nearest <= ASPECTS[1]:
            continue
        parameters = one + (nearest - 1) * (two - one)
        shapes.append(Shape(config(nearest), parameters, parameters / wish - 1))
    if not shapes:
        tables = NARROWEST * vocab_size * (1 if tied else 2)
        raise InputError(
            "--params",
            f"{wish:,} with a vocabulary of {vocab_size:,}",
            f"what widths of {NARROWEST} to {WIDEST:,} reach, from {tables:,} on (embedding and head)",
            "give another --vocab-size or number",
        )
    return sorted(shapes, key=_distance)[:NUM_SHAPES]


def _widths() -> Iterator[int]:
    """Multiples of 128, from 1024 on of 256, from 2048 on of 512 and from 4096 on of 1024."""
    width = NARROWEST
    while width <= WIDEST:
        yield width
        width += 128 * min(8, 2 ** max(0, width.bit_length() - 10))


def _distance(shape: Shape) -> float:
    aspect = shape.config.d_model / shape.config.num_layers
    return abs(shape.error) + WORTH_OF_DOUBLE * abs(math.log2(aspect / USUAL_ASPECT))
