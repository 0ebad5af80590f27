"""Shapes of about so many parameters, in multiples that matrix units like, counted exactly.

d_model and d_feed_forward are multiples of 128, heads 64 or 128 wide and the vocabulary a multiple of 64:
tensor cores are used best where the sides of 16-bit matrices are multiples of 64 elements on an A100 (NVIDIA,
"Matrix Multiplication Background User's Guide", section 4). Below a width of 1024, where that leaves gaps in
size, d_model may be a multiple of 64, 32 or 16, with heads as narrow as 16. Wider models have a number of
heads that 4 or 8 tensor-parallel ranks divide. d_model / num_layers is within 32 to 160, a range over which
the loss changes little (Kaplan et al. 2020, arXiv:2001.08361, figure 5) and in which GPT-3's models are
(Brown et al. 2020, arXiv:2005.14165, table 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minilm.config import ModelConfig
from minilm.errors import InputError

VOCABULARY_MULTIPLE = 64
NARROWEST, WIDEST = 32, 32768
MULTIPLES = (128, 64, 32, 16)  # of d_model below RELAXED, the first that gives a shape within CLOSE
RELAXED = 1024
CLOSE = 0.05
HEAD_WIDTHS = (64, 48, 32, 16)  # of a d_model below 2048
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
    default), with the head ``tied`` or not. A finer multiple of d_model is used where no
    shape is within CLOSE and it at least halves the error. Raises InputError where no width gives a model of
    that size.
    """
    vocab_size = -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    shapes: list[Shape] = []
    least = math.inf
    for multiple in MULTIPLES:
        finer = _shapes(wish, count, multiple, vocab_size, context_length, tied)
        error = min((abs(shape.error) for shape in finer), default=math.inf)
        if error <= least / 2:
            shapes, least = finer, error
        if least <= CLOSE:
            break
    if not shapes:
        tables = NARROWEST * vocab_size * (1 if tied else 2)
        raise InputError(
            "--params",
            f"{wish:,} with a vocabulary of {vocab_size:,}",
            f"what widths of {NARROWEST} to {WIDEST:,} reach, from {tables:,} on (embedding and head)",
            f"give another --vocab-size or number{'' if tied else ', or --tied-embeddings'}",
        )
    close = [shape for shape in shapes if abs(shape.error) <= CLOSE]
    return sorted(close or shapes, key=_distance)[:NUM_SHAPES]


def _shapes(
    wish: int,
    count: Callable[[ModelConfig], int],
    multiple: int,
    vocab_size: int,
    context_length: int,
    tied: bool,
) -> list[Shape]:
    shapes = []
    for d_model in _widths(multiple):

        def config(num_layers: int, d_model: int = d_model) -> ModelConfig:
            return ModelConfig(
                vocab_size=vocab_size,
                context_length=context_length,
                num_layers=num_layers,
                d_model=d_model,
                num_heads=d_model // _head_width(d_model),
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
    return shapes


def _head_width(d_model: int) -> int:
    return 128 if d_model >= 2048 else next(width for width in HEAD_WIDTHS if d_model % width == 0)


def _widths(multiple: int) -> Iterator[int]:
    """Multiples of ``multiple``, from 1024 on of 256, from 2048 on of 512 and from 4096 on of 1024."""
    yield from range(max(NARROWEST, multiple), RELAXED, multiple)
    width = RELAXED
    while width <= WIDEST:
        yield width
        width += 128 * min(8, 2 ** max(0, width.bit_length() - 10))


def _distance(shape: Shape) -> float:
    aspect = shape.config.d_model / shape.config.num_layers
    return abs(shape.error) + WORTH_OF_DOUBLE * abs(math.log2(aspect / USUAL_ASPECT))
