"""One text divided among clients. Needs no Flower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minilm.data.dataset import Dataset
from minilm.data.shards import prepare
from minilm.errors import ConfigError, CorpusError
from minilm.federation.partition import divide
from minilm.text.corpora import open_corpus


def dataset_of(folder: Path, documents: list[str], tokenizer: str = "char") -> Dataset:
    for number, document in enumerate(documents):
        (folder / f"{number:04d}.txt").write_text(document, encoding="utf-8")
    return prepare(
        open_corpus(str(folder), cache=folder.parent / "cache"),
        tokenizer=tokenizer,
        vocab_size=None,
        val_fraction=0.1,
        cache=folder.parent / "cache",
        context_length=1,
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """400 documents, each of one letter."""
    folder = tmp_path_factory.mktemp("many") / "text"
    folder.mkdir()
    texts = [chr(97 + number * 26 // 400) * (5 + number % 7) for number in range(400)]
    return dataset_of(folder, texts)


@pytest.mark.parametrize("partition", ["contiguous", "random"])
@pytest.mark.parametrize("clients", [1, 2, 3, 7])
def test_each_token_is_one_client_s(many: Dataset, partition: str, clients: int) -> None:
    parts = divide(many, clients, partition, seed=1)  # type: ignore[arg-type]
    tokens = np.concatenate([part.train for part in parts])
    assert sorted(tokens.tolist()) == sorted(np.asarray(many.train).tolist())
    sizes = [part.train_tokens for part in parts]
    assert max(sizes) - min(sizes) <= 30
    assert all(part.val is many.val for part in parts)
    if partition == "contiguous" or clients == 1:
        assert np.array_equal(tokens, many.train)


def test_a_random_client_has_whole_documents_from_everywhere(many: Dataset) -> None:
    first, second = divide(many, 2, "random", seed=0)
    ends = many.tokenizer.end_of_text
    for part in (first, second):
        assert len(np.unique(part.train)) >= 20  # of 24 letters of the training part
        lengths = np.diff(np.flatnonzero(part.train == ends))
        assert lengths.min() >= 6
    again = divide(many, 2, "random", seed=0)[0]
    assert np.array_equal(again.train, first.train)
    other = divide(many, 2, "random", seed=1)[0]
    assert not np.array_equal(other.train[:500], first.train[:500])
    halves = divide(many, 2, "contiguous", seed=0)
    shared = np.intersect1d(*(np.unique(part.train) for part in halves))
    assert len(shared) <= 2  # the letter in the middle, and the end of a document


def test_one_document_is_cut_into_pieces(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    dataset = dataset_of(tmp_path / "text", ["".join(map(str, range(2000)))], "byte")
    parts = divide(dataset, 3, "random", seed=0)
    assert sum(part.train_tokens for part in parts) == dataset.train_tokens
    assert all(part.documents > 20 for part in parts)


def test_what_cannot_be_divided(many: Dataset, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    short = dataset_of(tmp_path / "text", ["abcdefghijklmnopqrst"], "byte")
    with pytest.raises(CorpusError, match="18 training tokens for 20 clients"):
        divide(short, 20, "random", seed=0)
    from minilm.data.mixture import mixed

    with pytest.raises(ConfigError, match="one text to divide"):
        divide(mixed([many, many], [1.0, 1.0], "mix:a=1;b=1", "0"), 2, "random", seed=0)
