"""Shapes of a wished size: counted exactly, near the wish, in multiples that hardware likes."""

from __future__ import annotations

import pytest

from minilm.architectures.minilm import layout
from minilm.config import ModelConfig
from minilm.costs.shapes import ASPECTS, CLOSE, HEAD_WIDTHS, propose_shapes
from minilm.errors import InputError


def count(config: ModelConfig) -> int:
    return layout(config).count()


@pytest.mark.parametrize(
    ("wish", "vocab_size", "tied", "largest_error"),
    [
        (125_000_000, 50257, True, 0.03),
        (125_000_000, 50257, False, 0.03),
        (1_000_000, 1000, False, 0.06),
        (7_000_000_000, 32000, False, 0.02),
        (70_000_000_000, 128256, False, 0.02),
    ],
)
def test_proposed(wish: int, vocab_size: int, tied: bool, largest_error: float) -> None:
    shapes = propose_shapes(wish, count, vocab_size=vocab_size, context_length=1024, tied=tied)
    assert len(shapes) in range(1, 6)
    assert len({shape.config.d_model for shape in shapes}) == len(shapes)
    for shape in shapes:
        config = shape.config
        assert shape.parameters == count(config)
        assert shape.error == pytest.approx(shape.parameters / wish - 1)
        assert abs(shape.error) < largest_error
        assert (config.d_model % 128, config.d_feed_forward % 128) == (0, 0)
        assert config.head_dim in (64, 128)
        assert config.vocab_size % 64 == 0
        assert vocab_size <= config.vocab_size < vocab_size + 64
        assert ASPECTS[0] <= config.d_model / config.num_layers <= ASPECTS[1]
        if config.d_model >= 2048:
            assert config.num_heads % 4 == 0


def test_the_best_of_125_million_with_a_tied_head_is_the_shape_of_gpt2() -> None:
    best = propose_shapes(125_000_000, count, vocab_size=50257, context_length=1024, tied=True)[0]
    assert (best.config.num_layers, best.config.d_model, best.config.num_heads) == (12, 768, 12)


@pytest.mark.parametrize(
    ("wish", "vocab_size", "multiple"),
    [
        (10_000_000, 50257, 32),
        (15_000_000, 50257, 16),
        (20_000_000, 50257, 64),
        (40_000_000, 50257, 64),
    ],
)
def test_small_sizes_have_finer_multiples_of_the_width(
    wish: int, vocab_size: int, multiple: int
) -> None:
    shapes = propose_shapes(wish, count, vocab_size=vocab_size, context_length=1024, tied=False)
    for shape in shapes:
        assert abs(shape.error) <= CLOSE
        assert shape.parameters == count(shape.config)
    best = shapes[0]
    assert abs(best.error) < 0.02
    assert best.config.d_model % multiple == 0 < best.config.d_model % (2 * multiple)
    assert best.config.head_dim in HEAD_WIDTHS


def test_where_nothing_is_close_the_nearest_is_proposed() -> None:
    shapes = propose_shapes(5_000_000, count, vocab_size=50257, context_length=1024, tied=False)
    assert shapes[0].error == pytest.approx(0.298, abs=0.001)


@pytest.mark.parametrize("wish", [1, 1_000_000, 10**18])
def test_what_no_shape_has(wish: int) -> None:
    with pytest.raises(InputError, match=r"^--params: .*--vocab-size"):
        propose_shapes(wish, count, vocab_size=50257, context_length=1024, tied=False)
