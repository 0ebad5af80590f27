"""Hashed n-grams: which row a token reads is part of the file format, and depends on n tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minilm.model.ngrams import ngram_rows


def test_rows_are_pinned() -> None:
    """A change here makes every trained n-gram table useless: it is a change of the version."""
    tokens = torch.tensor([[5, 0, 64, 50256, 128000]])
    assert ngram_rows(tokens, 2, 4096).tolist() == [[3474, 585, 772, 907, 719]]
    assert ngram_rows(tokens, 3, 4096).tolist() == [[3103, 3308, 2126, 2268, 1776]]
    assert ngram_rows(tokens, 4, 999).tolist() == [[679, 366, 10, 908, 523]]


@given(st.integers(2, 5), st.lists(st.integers(0, 200_000), min_size=6, max_size=6))
def test_a_row_depends_on_n_tokens_and_no_others(n: int, drawn: list[int]) -> None:
    tokens = torch.tensor([drawn])
    rows = ngram_rows(tokens, n, 10_007)
    assert rows.shape == tokens.shape
    assert rows.min() >= 0
    assert rows.max() < 10_007
    window = ngram_rows(tokens[:, 6 - n :], n, 10_007)
    assert window[0, -1] == rows[0, -1]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_texts_shorter_than_an_ngram(length: int) -> None:
    tokens = torch.arange(length)[None]
    assert ngram_rows(tokens, 6, 50).shape == (1, length)
    # Nothing before a text is not the token 0 before it.
    assert ngram_rows(torch.tensor([[0, 3]]), 2, 10_007)[0, 1] != ngram_rows(
        torch.tensor([[3]]), 2, 10_007
    )


def test_trigrams_of_characters_spread_over_the_rows() -> None:
    tokens = torch.cartesian_prod(*[torch.arange(65)] * 3)  # every trigram of 65 characters
    counts = torch.bincount(ngram_rows(tokens, 3, 8192)[:, -1], minlength=8192)
    mean = 65**3 / 8192
    assert counts.min() > 0
    assert counts.max() < 3 * mean
