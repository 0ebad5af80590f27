"""Duplicates: the first of each stays, by its text or nearly; what only shares words does too."""

import importlib.util
import json
import logging
import random
from pathlib import Path

import pytest

from minilm.data.shards import prepare
from minilm.errors import CorpusError, MissingExtraError
from minilm.text.corpora import open_corpus
from minilm.text.deduplication import _word_sequences

CHOOSE = random.Random(0)
VOCABULARY = [f"word{i}" for i in range(300)]
NEAR = importlib.util.find_spec("rensa") is not None
needs_rensa = pytest.mark.skipif(not NEAR, reason="needs the extra dedup")


def text(words: int) -> str:
    return " ".join(CHOOSE.choices(VOCABULARY, k=words))


def changed(original: str, words: int) -> str:
    parts = original.split()
    for position in CHOOSE.sample(range(len(parts)), words):
        parts[position] = "other"
    return " ".join(parts)


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": each}) + "\n" for each in texts))
    return path


def read(source: str, tmp_path: Path, dedup: str | None) -> list[str]:
    corpus = open_corpus(source, cache=tmp_path / "cache", dedup=dedup)
    documents, parts = [], []
    for chunk in corpus.chunks():
        parts.append(chunk.text)
        if chunk.ends_document:
            documents.append("".join(parts))
            parts = []
    assert not parts
    return documents


def test_of_the_same_texts_the_first_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    long = text(300_000)  # of several chunks
    texts = ["a", long, "b", "a", "a ", long, long + "x", "b", "c"]
    path = write(tmp_path / "texts.jsonl", texts)
    assert read(str(path), tmp_path, "exact") == ["a", long, "b", "a ", long + "x", "c"]
    assert "3 of 9 documents (33.3%) are exact duplicates and left out" in caplog.text
    assert read(str(path), tmp_path, None) == texts


@pytest.mark.parametrize("mode", ["exact", pytest.param("near", marks=needs_rensa)])
def test_of_a_mixture_each_source_has_its_rate_and_its_tokens(
    tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first, second, third = (text(30) for _ in range(3))
    a = write(tmp_path / "a.jsonl", [first, second, first])
    b = write(tmp_path / "b.jsonl", [second, third, first, text(30)])
    settings = {"tokenizer": "byte", "vocab_size": None, "val_fraction": 0.1, "context_length": 8}

    def prepared(source: str, dedup: str | None = mode):
        cache = tmp_path / "cache"
        corpus = open_corpus(source, cache=cache, dedup=dedup)
        return prepare(corpus, cache=cache, **settings)

    mixture = prepared(f"mix:{a}=1;{b}=1")
    assert f"a.jsonl: 1 of 3 documents (33.3%) are {mode} duplicates" in caplog.text
    assert f"b.jsonl: 2 of 4 documents (50.0%) are {mode} duplicates" in caplog.text
    assert [part.documents for part in mixture.parts] == [2, 2]
    assert caplog.text.count("documents are the field") == 2, "once for each source"
    assert prepared(str(b)).documents == 4, "alone it has no duplicates"
    assert prepared(str(a)).documents == 2
    assert prepared(str(a), None).documents == 3
    copy = write(tmp_path / "copy.jsonl", [first, second])
    with pytest.raises(CorpusError, match=r"copy\.jsonl: no text after --dedup, expected text"):
        prepared(f"mix:{a}=1;{copy}=1")


@needs_rensa
def test_of_texts_that_are_nearly_the_same_the_first_stays(tmp_path: Path) -> None:
    originals = [text(400) for _ in range(5)]
    copies = [changed(each, 3) for each in originals for _ in range(3)]
    path = write(tmp_path / "texts.jsonl", originals + copies)
    assert read(str(path), tmp_path, "near") == originals
    assert read(str(path), tmp_path, "exact") == originals + copies


@needs_rensa
def test_what_is_no_near_duplicate_stays(tmp_path: Path) -> None:
    unrelated = [text(50_000) for _ in range(6)]  # of the same words
    path = write(tmp_path / "unrelated.jsonl", unrelated)
    assert read(str(path), tmp_path, "near") == unrelated
    # Each is like the one before it, but the third is not like the first.
    chain = [text(600)]
    for _ in range(8):
        chain.append(changed(chain[-1], 6))
    stay = read(str(write(tmp_path / "chain.jsonl", chain)), tmp_path, "near")
    assert stay[0] == chain[0]
    assert chain[1] not in stay
    assert 2 <= len(stay) < len(chain)


def test_sequences_of_words_continue_over_pieces_of_a_text() -> None:
    words = [f"w{i}" for i in range(12)]
    whole = [" ".join(words[i : i + 5]) for i in range(8)]
    for cut in range(13):
        pieces = [" ".join(words[:cut]), " " + " ".join(words[cut:])]
        assert [each for part in _word_sequences(pieces) for each in part] == whole
    assert list(_word_sequences(["one two", " three"])) == [["one two three"]]


def test_without_the_library_a_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "texts.jsonl", ["a", "b"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"--dedup near: .*minilm\[dedup\]"):
        open_corpus(str(path), cache=tmp_path, dedup="near")
    open_corpus(str(path), cache=tmp_path, dedup="exact")
