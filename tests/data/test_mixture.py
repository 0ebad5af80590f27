"""Mixtures: each row is of one text, as often as its weight says, the same on every machine."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minilm.config import TrainConfig
from minilm.data.mixture import Mixture
from minilm.data.shards import prepare
from minilm.errors import CorpusError
from minilm.text.corpora import open_corpus, parse_mixture
from minilm.text.corpus import Corpus
from minilm.text.tokenizer_training import build_tokenizer

CONFIG = TrainConfig(seed=3)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A text of a and one of b, three times as long, of which each tenth validates."""
    (tmp_path / "a.txt").write_text("a" * 1000)
    (tmp_path / "b.jsonl").write_text('{"text": "' + "b" * 3000 + '"}\n')
    return tmp_path


def opened(folder: Path, weights: str = "3 1") -> Corpus:
    first, second = weights.split()
    source = f"mix:{folder / 'a.txt'}={first};{folder / 'b.jsonl'}={second}"
    return open_corpus(source, cache=folder / "cache")


def prepared(folder: Path, weights: str = "3 1", tokenizer="byte", **changes) -> Mixture:
    settings = {"vocab_size": None, "val_fraction": 0.1, "context_length": 8} | changes
    corpus = opened(folder, weights)
    dataset = prepare(corpus, tokenizer=tokenizer, cache=folder / "cache", **settings)
    assert isinstance(dataset, Mixture)
    return dataset


def rows(dataset: Mixture, step: int, count: int = 8, micro_step: int = 0, config=CONFIG):
    return dataset.training_batch(
        config, step=step, micro_step=micro_step, rows=count, length=8, merges=None
    ).arrays[0]


@pytest.mark.parametrize("windows", ["random", "even"])
def test_rows_are_drawn_by_weight_each_of_one_text(texts: Path, windows: str) -> None:
    dataset, config = prepared(texts), replace(CONFIG, windows=windows)
    drawn = np.concatenate([rows(dataset, step, config=config) for step in range(500)])
    assert (drawn == drawn[:, :1]).all(), "none is of both texts"
    share = (drawn[:, 0] == ord("a")).mean()
    assert abs(share - 0.75) < 0.03
    assert (dataset.train_tokens, dataset.val_tokens, dataset.bytes) == (3600, 400, 4013)
    sources = dataset.description["mixture"]
    assert [each["weight"] for each in sources] == [3, 1]
    assert [each["train_tokens"] for each in sources] == [900, 2700]


def test_a_row_follows_from_seed_step_micro_step_and_its_number(texts: Path) -> None:
    dataset = prepared(texts, "1 1")
    assert np.array_equal(rows(dataset, 5), rows(prepared(texts, "1 1"), 5))
    batches = {rows(dataset, *where).tobytes() for where in [(5,), (6,), (5, 8, 1)]}
    assert len(batches) == 3
    # The source of a row does not depend on how many rows there are.
    assert np.array_equal(rows(dataset, 5, 16)[:8, 0], rows(dataset, 5, 8)[:, 0])


def test_the_tokenizer_is_that_of_all_training_texts(texts: Path) -> None:
    dataset = prepared(texts, tokenizer="bpe", vocab_size=300, context_length=2)
    expected = build_tokenizer("bpe", lambda: iter(["a" * 900, "b" * 2700]), 300)
    assert dataset.tokenizer.to_json() == expected.to_json()
    again = prepared(texts, tokenizer=dataset.tokenizer, context_length=2)
    assert again.key == dataset.key, "as a resumed run finds it"
    assert prepared(texts, "1 1", tokenizer=dataset.tokenizer, context_length=2).key != dataset.key
    assert prepared(texts, tokenizer="char").tokenizer.vocab_size == 3


def test_a_folder_of_the_same_files_is_another_text(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name in "ab":
        (tmp_path / "texts" / f"{name}.txt").write_text(f"{name} text {name}" * 50)
    settings = {"tokenizer": "bpe", "vocab_size": 300, "val_fraction": 0.5, "context_length": 8}
    cache = tmp_path / "cache"
    parts = ";".join(f"{tmp_path}/texts/{name}.txt=1" for name in "ab")
    mixture = prepare(open_corpus(f"mix:{parts}", cache=cache), cache=cache, **settings)
    folder = prepare(open_corpus(str(tmp_path / "texts"), cache=cache), cache=cache, **settings)
    assert b"b text" not in folder.tokenizer.decode(folder.train).encode()
    assert mixture.tokenizer.to_json() != folder.tokenizer.to_json()


def test_a_part_shorter_than_a_row_is_refused(texts: Path) -> None:
    with pytest.raises(CorpusError, match=r"a\.txt: 900 training tokens .* at least 1001"):
        prepared(texts, context_length=1000)
    assert prepared(texts).longest_window == 900


@pytest.mark.parametrize(
    "source",
    ["mix:", "mix:a.txt", "mix:a.txt=x", "mix:a.txt=0", "mix:a.txt=nan", "mix:=1", "mix:a=1;"],
)
def test_another_form_is_refused_in_a_line(source: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="mix:SOURCE=WEIGHT"):
        open_corpus(source, cache=tmp_path)


def test_sources_may_have_options_of_their_own() -> None:
    assert parse_mixture("mix:hf:name:x,split=train,rows=10=0.5; b*.txt=2") == [
        ("hf:name:x,split=train,rows=10", 0.5),
        ("b*.txt", 2.0),
    ]
