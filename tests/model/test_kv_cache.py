"""The model's forward pass with a cache: the logits of the pass without one, however the tokens come."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from minilm.config import ModelConfig
from minilm.model.kv_cache import KVCache
from minilm.model.transformer import Transformer
from tests.interop.shapes import GATED, random_model
from tests.model.architectures import ARCHITECTURES
from tests.strategies import model_configs

LENGTH = 32


def tokens(rows: int, length: int = LENGTH, vocab_size: int = 256) -> Tensor:
    return torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(rows))


@torch.no_grad()
def in_parts(model: Transformer, text: Tensor, ends: Sequence[int], cache: KVCache) -> Tensor:
    """Logits of ``text``, read up to each of ``ends`` in turn."""
    bounds = itertools.pairwise([0, *ends])
    return torch.cat([model(text[:, begin:end], cache) for begin, end in bounds], dim=1)


def assert_close(logits: Tensor, expected: Tensor) -> None:
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    "ends",
    [range(1, LENGTH + 1), [9, *range(10, LENGTH + 1)], [3, 12, 13, 15, LENGTH], [LENGTH]],
    ids=["one-by-one", "prompt-then-one-by-one", "in-parts", "at-once"],
)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_cached_logits_are_those_of_the_whole_text(name: str, ends: Sequence[int]) -> None:
    model = random_model(ModelConfig(**ARCHITECTURES[name]))
    text = tokens(2)
    expected = model(text)
    assert expected.std() > 0.3
    cache = KVCache(model.config, 2)
    assert_close(in_parts(model, text, ends, cache), expected)
    assert cache.lengths == [LENGTH, LENGTH]


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_sequences_of_unequal_length(name: str) -> None:
    model = random_model(ModelConfig(**ARCHITECTURES[name]))
    text, begins = tokens(3), [2, 11, 0]
    expected = model(text)
    cache = KVCache(model.config, 3)
    for row, begin in enumerate(begins):
        if begin:
            single = cache.row(row)
            model(text[row : row + 1, :begin], single)
            cache.lengths[row] = single.lengths[0]
    read = 0
    for t in (1, 1, 3, 1, 7, 1):
        rows = [range(begin + read, begin + read + t) for begin in begins]
        index = torch.tensor([list(row) for row in rows])
        logits = model(text.gather(1, index), cache)
        assert_close(logits, expected.gather(1, index[:, :, None].expand_as(logits)))
        read += t
    cache.select([1])
    assert cache.lengths == [11 + read]
    logits = model(text[1:2, 11 + read :], cache)
    assert_close(logits, expected[1:2, 11 + read :])


@settings(max_examples=30, deadline=None)
@given(config=model_configs(), data=st.data())
def test_any_config_read_in_any_parts(config: ModelConfig, data: st.DataObject) -> None:
    model, length = random_model(config), config.context_length
    ends = data.draw(st.sets(st.integers(1, length)).map(lambda ends: sorted({*ends, length})))
    text = tokens(2, length, config.vocab_size)
    with torch.no_grad():
        expected = model(text)
    cache = KVCache(config, 2)
    torch.testing.assert_close(in_parts(model, text, ends, cache), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("read", [4, 20])
@torch.no_grad()
def test_a_truncated_cache_goes_on_as_if_nothing_had_followed(name: str, read: int) -> None:
    config = ModelConfig(**ARCHITECTURES[name])
    model, cache, same = random_model(config), KVCache(config, 1), 3
    first, second = tokens(2).split(1)
    text = torch.cat((first[:, :same], second[:, same:]), dim=1)
    model(first[:, :read], cache)
    cache.truncate(same)
    [length] = cache.lengths
    forgets = config.ngram > 1 or config.convolution or 0 < config.sliding_window < read
    assert length == (0 if forgets else same)
    assert_close(model(text[:, length:], cache), model(text)[:, length:])


def test_a_cleared_cache_is_empty() -> None:
    model = random_model(ModelConfig(**ARCHITECTURES["fast"]))
    cache = KVCache(model.config, 2)
    in_parts(model, tokens(2), [LENGTH], cache)
    cache.clear()
    text = tokens(2, 9)
    assert_close(in_parts(model, text, [4, 9], cache), model(text))


def test_grouped_heads_are_stored_once_and_a_window_alone() -> None:
    config = ModelConfig(**GATED | {"num_kv_heads": 2, "sliding_window": 5})
    block = KVCache(config, 3).blocks[0]
    assert block.key.shape == block.value.shape == (3, 2, 5, 8)


def test_more_tokens_than_the_cache_holds_is_a_bug_not_a_result() -> None:
    model = random_model(ModelConfig(**ARCHITECTURES["gpt2"]))
    cache = KVCache(model.config, 1, max_length=8)
    with pytest.raises(AssertionError, match="5 tokens and 4 exceed the 8 of the cache"):
        in_parts(model, tokens(1), [5, 9], cache)
