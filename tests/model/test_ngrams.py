"""Hashed n-grams: which row a token reads is part of the file format, and depends on n tokens."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from minilm.model.ngrams import ngram_rows

PINNED = [
    [3474, 585, 772, 907, 719],
    [7199, 7404, 6222, 6364, 5872],
    [12232, 9921, 12269, 10545, 11229],
]


def test_rows_are_pinned() -> None:
    """A change here makes every trained n-gram table useless: it is a change of the version."""
    tokens = torch.tensor([[5, 0, 64, 50256, 128000]])
    assert ngram_rows(tokens, 4, 4096)[0].T.tolist() == PINNED


def hashed(tokens: list[int], n: int, rows: int) -> list[int]:
    """The definition, in Python's integers."""
    indices = []
    for position in range(len(tokens)):
        key = tokens[position] + 1
        for distance in range(1, n):
            earlier = tokens[position - distance] + 1 if position >= distance else 0
            key = (key * 1_000_003 + earlier) % (2**31 - 1)
        indices.append(key % rows + (n - 2) * rows)
    return indices


@given(st.integers(2, 5), st.lists(st.integers(0, 200_000), min_size=1, max_size=6))
def test_rows_are_their_definition(longest: int, ids: list[int]) -> None:
    rows = ngram_rows(torch.tensor([ids]), longest, 10_007)
    assert rows.shape == (1, len(ids), longest - 1)
    for n in range(2, longest + 1):
        assert rows[0, :, n - 2].tolist() == hashed(ids, n, 10_007)


@given(st.integers(2, 5), st.lists(st.integers(0, 200_000), min_size=6, max_size=6))
def test_a_row_depends_on_n_tokens_and_no_others(n: int, ids: list[int]) -> None:
    tokens = torch.tensor([ids])
    whole, window = ngram_rows(tokens, n, 10_007), ngram_rows(tokens[:, 6 - n :], n, 10_007)
    assert torch.equal(window[0, -1], whole[0, -1])


def test_nothing_before_a_text_is_not_the_token_0_before_it() -> None:
    after_0 = ngram_rows(torch.tensor([[0, 3]]), 2, 10_007)[0, 1]
    assert after_0 != ngram_rows(torch.tensor([[3]]), 2, 10_007)[0, 0]


def test_trigrams_of_characters_spread_over_the_rows() -> None:
    tokens = torch.cartesian_prod(*[torch.arange(65)] * 3)  # every trigram of 65 characters
    rows = ngram_rows(tokens, 3, 8192)[:, -1, 1] - 8192
    counts = torch.bincount(rows, minlength=8192)
    assert len(counts) == 8192
    assert counts.min() > 0
    assert counts.max() < 3 * 65**3 / 8192
