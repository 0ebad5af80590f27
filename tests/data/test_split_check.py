"""The sample of a large file is spread over all of it, and a difference is one of frequencies."""

from pathlib import Path

import numpy as np
import pytest

from minilm.data import split_check
from minilm.data.split_check import read_sample, split_difference


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_a_sample_is_spread_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(split_check, "_STRETCH", 128)
    monkeypatch.setattr(split_check, "_STRETCHES", 4)
    tokens = np.arange(10_000, dtype=dtype)
    tokens.tofile(tmp_path / "a.bin")
    sample = read_sample([(tmp_path / "a.bin", len(tokens))], dtype)
    starts = [0, 3290, 6581, 9872]
    assert sample.ravel().tolist() == [start + i for start in starts for i in range(128)]
    whole = read_sample([(tmp_path / "a.bin", 500)], dtype)
    assert whole.ravel().tolist() == list(range(448)), "of a small one all full blocks"


def test_frequencies_are_compared_with_a_random_part() -> None:
    random = np.random.default_rng(1)
    train = random.integers(0, 20, size=(200, 64), dtype=np.uint16)
    alike = random.integers(0, 20, size=(20, 64), dtype=np.uint16)
    assert split_difference(train, alike, 30, 1.0) == ""
    difference = split_difference(train, alike // 2, 30, 1.0)  # of tokens that training has
    assert difference.startswith("training's token frequencies fit it ")
    assert split_difference(train, alike // 2, 30, 100.0) == "", "less for each byte"
    other = np.where(random.random(alike.shape) < 0.02, 29, alike).astype(np.uint16)
    difference = split_difference(train, other, 30, 100.0)
    assert difference.endswith("% of its tokens do not occur in training (0.0% if split at random)")
    assert ", and training's" in split_difference(train, alike // 2 + 25, 60, 1.0)
    assert split_difference(train, other[:3], 30, 1.0) == "", "too little to say"


def test_rare_tokens_are_rare_in_any_part() -> None:
    random = np.random.default_rng(2)
    tokens = random.zipf(1.2, size=(300, 64)).clip(max=60_000).astype(np.uint16)
    assert split_difference(tokens[:270], tokens[270:], 2**16, 3.0) == ""
