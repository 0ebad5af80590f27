"""The split: what validates in each mode, that nothing is lost, and when the two sides are unlike."""

import functools
import random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minilm.data.corpus_stats import measure
from minilm.data.shards import prepare
from minilm.data.splits import divide
from minilm.errors import CorpusError
from minilm.text import corpus as corpus_module
from minilm.text.chunking import split_into_chunks
from minilm.text.corpus import Corpus, Document

WORDS = (
    "the",
    "a",
    "red",
    "old",
    "dog",
    "cat",
    "tree",
    "house",
    "sees",
    "likes",
    "near",
    "with",
    "runs",
)


def corpus_of(texts: list[str]) -> Corpus:
    return Corpus("m", "m", (), lambda: (Document("m", [text.encode()]) for text in texts))


def lines_of(count: int, seed: int = 0) -> list[str]:
    choose = random.Random(seed)
    return [" ".join(choose.choices(WORDS, k=8)).capitalize() + ".\n" for _ in range(count)]


def prepared(texts: list[str], cache, mode: str, tokenizer: str = "byte", **changes):
    settings = {"vocab_size": None, "val_fraction": 0.1, "context_length": 8} | changes
    return prepare(corpus_of(texts), tokenizer=tokenizer, cache=cache, split=mode, **settings)


def text_of(dataset, split: str) -> str:
    return bytes(getattr(dataset, split).tolist()).decode()


def test_documents_validate_whole_and_in_their_order(tmp_path):
    texts = [f"{i}: " + "word " * (i % 7 + 1) for i in range(100)]
    dataset = prepared(texts, tmp_path, "document")
    train, val = (text_of(dataset, split).split("\0")[:-1] for split in ("train", "val"))
    assert sorted(train + val) == sorted(texts), "each once, none is cut"
    assert train == [text for text in texts if text in train]
    assert val == [text for text in texts if text in val]
    assert val != texts[-len(val) :]
    assert 0.05 < dataset.val_bytes / (dataset.train_bytes + dataset.val_bytes) <= 0.1


def test_a_large_document_does_not_validate_if_others_can(tmp_path):
    texts = ["x" * 9000, *("y" * 100 for _ in range(10))]
    assert set(text_of(prepared(texts, tmp_path, "document"), "val")) == {"y", "\0"}
    val = text_of(prepared(["x" * 9000, "y" * 5000], tmp_path, "document"), "val")
    assert val == "y" * 5000 + "\0", "the smallest where none is small enough"


def test_lines_of_a_single_document_are_shuffled(tmp_path):
    lines = sorted(lines_of(1000))
    dataset = prepared(["".join(lines)[:-1]], tmp_path, "shuffle")
    train, val = text_of(dataset, "train"), text_of(dataset, "val")
    assert sorted((train + val).splitlines(keepends=True)) == lines
    assert train.splitlines() != sorted(train.splitlines())
    assert 0.08 < len(val) / len(train + val) <= 0.1
    first = "".join(line[0] for line in train.splitlines())
    assert set(first[:300]) == set(first[300:]), "every beginning occurs everywhere"


def test_documents_are_shuffled_with_their_separators(tmp_path):
    texts = [f"{i}: a\nb" for i in range(200)]
    dataset = prepared(texts, tmp_path, "shuffle")
    train, val = (text_of(dataset, split).split("\0")[:-1] for split in ("train", "val"))
    assert sorted(train + val) == sorted(texts)
    assert train != sorted(train, key=texts.index)


def test_the_shuffle_is_the_same_each_time_and_stored_whole(tmp_path, caplog):
    lines = ["".join(sorted(lines_of(500)))]
    first = prepared(lines, tmp_path / "one", "shuffle")
    again = prepared(lines, tmp_path / "two", "shuffle")
    assert np.array_equal(first.train, again.train)
    stored = prepared(lines, tmp_path / "one", "shuffle")
    assert np.array_equal(first.val, stored.val)
    assert "damaged" not in caplog.text
    assert len(list((tmp_path / "one" / "tokens").iterdir())) == 1
    prepared(lines, tmp_path / "one", "position")
    assert len(list((tmp_path / "one" / "tokens").iterdir())) == 2


@given(
    st.lists(st.text("ab\n é", min_size=1, max_size=30), min_size=1, max_size=8),
    st.sampled_from(["position", "document", "shuffle"]),
    st.floats(0.05, 0.95),
    st.sampled_from([1, 3, 8, 2**20]),
    st.sampled_from([0, 3, 8, 2**20]),
)
@example(["a\nbbbbbbbbbb"], "shuffle", 0.5, 3, 3)
def test_nothing_is_lost(texts, mode, val_fraction, chunk_characters, longest_pending):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minilm.data.splits.CHUNK_CHARACTERS", longest_pending)
        chunks = functools.partial(split_into_chunks, size=chunk_characters)
        patch.setattr(corpus_module, "split_into_chunks", chunks)
        check_nothing_is_lost(texts, mode, val_fraction)


def check_nothing_is_lost(texts: list[str], mode: str, val_fraction: float) -> None:
    corpus = corpus_of(texts)
    size = measure(corpus)
    units = len(texts) if mode == "document" or len(texts) > 1 else len(texts[0].splitlines())
    if mode != "position" and units < 2:
        with pytest.raises(CorpusError, match="with --split"):
            divide(corpus, size, mode, val_fraction)
        return
    divided = divide(corpus, size, mode, val_fraction)
    pieces = list(divided.pieces())
    assert sum(len(piece.text) for piece in pieces) == divided.characters
    text = "".join(piece.text for piece in pieces)
    whole = "".join(texts)
    if mode == "shuffle" and len(texts) == 1 and not whole.endswith("\n"):
        whole += "\n"  # the last line may come to stand before another
    assert text == whole
    assert mode == "position" or pieces[-1].ends_unit
    if mode != "position":
        assert {piece.split for piece in pieces} == {"train", "val"}
    if mode == "document":
        assert sum(piece.ends_document for piece in pieces) == len(texts)


def test_lines_longer_than_a_chunk(monkeypatch):
    monkeypatch.setattr("minilm.data.splits.CHUNK_CHARACTERS", 16)
    monkeypatch.setattr(
        corpus_module,
        "split_into_chunks",
        lambda texts: (part for text in texts for part in cut(text)),
    )
    text = "x" * 100 + "\n" + "y" * 50 + "\nz"
    divided = divide(corpus_of([text]), measure(corpus_of([text])), "shuffle", 0.4)
    pieces = list(divided.pieces())
    assert "".join(piece.text for piece in pieces) == text + "\n"
    assert {piece.split for piece in pieces if piece.text[0] == "x"} == {"train"}


def test_a_last_line_longer_than_a_chunk_without_a_newline(monkeypatch):
    monkeypatch.setattr("minilm.data.splits.CHUNK_CHARACTERS", 16)
    monkeypatch.setattr(
        corpus_module,
        "split_into_chunks",
        lambda texts: (part for text in texts for part in cut(text)),
    )
    text = (
        "one\ntwo\n" + "x" * 22
    )  # three chunks, with the last of which a part of the line is yielded
    divided = divide(corpus_of([text]), measure(corpus_of([text])), "shuffle", 0.4)
    assert divided.characters == len(text) + 1
    assert "".join(piece.text for piece in divided.pieces()) == text + "\n"


def cut(text: str) -> list[str]:
    return [text[i : i + 10] for i in range(0, len(text), 10)]


@pytest.mark.parametrize(
    ("texts", "mode", "message"),
    [
        (["one\ntwo\n"], "document", "one document with --split document, expected several"),
        (["one line"], "shuffle", "one line with --split shuffle"),
    ],
)
def test_a_single_unit(tmp_path, texts, mode, message):
    with pytest.raises(CorpusError, match=message):
        prepared(texts, tmp_path, mode)


def test_a_document_that_comes_while_the_text_is_read_is_refused(tmp_path):
    texts = [f"document {number}" * 9 for number in range(20)]
    passes = iter([texts, texts, texts, [*texts, "new"]])
    corpus = Corpus("m", "m", (), lambda: corpus_of(next(passes)).documents())
    settings = {"vocab_size": None, "val_fraction": 0.1, "context_length": 8}
    with pytest.raises(CorpusError, match="changed while it was read"):
        prepare(corpus, tokenizer="byte", cache=tmp_path, split="document", **settings)


@pytest.mark.parametrize("tokenizer", ["byte", "char", "bpe"])
def test_a_sorted_text_is_noticed(tmp_path, caplog, tokenizer):
    lines = lines_of(2000)
    vocab_size = 400 if tokenizer == "bpe" else None
    prepared(["".join(lines)], tmp_path, "position", tokenizer, vocab_size=vocab_size)
    assert "is unlike the rest" not in caplog.text
    ordered = ["".join(sorted(lines))]
    prepared(ordered, tmp_path, "shuffle", tokenizer, vocab_size=vocab_size)
    assert "is unlike the rest" not in caplog.text
    for _ in range(2):  # built, then reused
        caplog.clear()
        prepared(ordered, tmp_path, "position", tokenizer, vocab_size=vocab_size)
        assert "is unlike the rest" in caplog.text
        assert "use --split shuffle" in caplog.text


def test_another_kind_of_text_at_the_end_is_noticed(tmp_path, caplog):
    prepared(["".join(lines_of(500)), "0123456789\n" * 300], tmp_path, "position")
    assert "use --split document or shuffle" in caplog.text
