"""Shards: what is in them, when they are reused and rebuilt, bounded memory, every refusal."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minilm.data import encoding, shards
from minilm.data.cache import default_cache
from minilm.data.corpus_stats import identify, measure
from minilm.data.shards import prepare
from minilm.errors import CorpusError, InputError, TokenizerError
from minilm.text.corpora import open_corpus
from minilm.text.corpus import Corpus, Document
from minilm.text.tokenizer_training import build_tokenizer
from minilm.text.tokenizers import Tokenizer

LINES = "".join(f"line {i}: naïve café number² {i * 7919 % 1000}\n" for i in range(400))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(LINES.encode())
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "texts"
    path.mkdir()
    for name, text in [("a", LINES[:5000]), ("b", ""), ("c", LINES[5000:5003]), ("d", LINES[:900])]:
        (path / name).write_bytes(text.encode())
    return path


def prepared(source, tmp_path, *, cleaning=(), **changes):
    corpus = open_corpus(str(source), cleaning=cleaning, cache=tmp_path / "cache")
    settings = {"tokenizer": "byte", "vocab_size": None, "val_fraction": 0.1} | changes
    settings = {"context_length": 8, "cache": tmp_path / "cache"} | settings
    return prepare(corpus, **settings)


def entries(tmp_path) -> list[Path]:
    return sorted((tmp_path / "cache" / "tokens").iterdir())


def test_survey(folder, tmp_path):
    corpus = open_corpus(str(folder), cache=tmp_path)
    raw = (LINES[:5000] + LINES[5000:5003] + LINES[:900]).encode()
    identity = identify(corpus)
    assert identity.bytes == len(raw)
    assert identity.sha256 == hashlib.sha256(raw).hexdigest()
    assert dataclasses.astuple(measure(corpus)) == (3, 5903, len(raw))
    cleaned = open_corpus(str(folder), cleaning=["nfkc"], cache=tmp_path)
    text = raw.decode().replace("²", "2")
    assert identify(cleaned) == identity
    assert dataclasses.astuple(measure(cleaned)) == (3, len(text), len(text.encode()))


def test_where_documents_end_is_part_of_the_identity(tmp_path):
    for name, parts in [("one", ["ab", "c"]), ("two", ["a", "bc"])]:
        (tmp_path / name).mkdir()
        for number, part in enumerate(parts):
            (tmp_path / name / str(number)).write_text(part)
    one, two = (identify(open_corpus(str(tmp_path / n), cache=tmp_path)) for n in ("one", "two"))
    assert one.sha256 == two.sha256
    assert one != two


def test_what_a_file_is_read_as_is_part_of_it_too(tmp_path):
    line = '{"text": "' + "x" * 200 + '"}\n'
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / name).write_text(line)
    assert prepared(tmp_path / "a.txt", tmp_path).train_bytes == int(len(line) * 0.9)
    assert prepared(tmp_path / "a.jsonl", tmp_path).train_bytes == 180
    sizes = [
        identify(open_corpus(str(tmp_path / name), cache=tmp_path)) for name in ("a.txt", "a.jsonl")
    ]
    assert sizes[0].sha256 == sizes[1].sha256


@pytest.mark.parametrize("kind", ["byte", "char", "bpe"])
def test_one_document_is_split_by_position_without_separators(file, tmp_path, kind):
    dataset = prepared(file, tmp_path, tokenizer=kind, vocab_size=300 if kind == "bpe" else None)
    boundary = int(len(LINES) * (1 - 0.1))
    train, val = LINES[:boundary], LINES[boundary:]
    assert dataset.tokenizer.kind == kind
    assert np.array_equal(dataset.train, dataset.tokenizer.encode(train))
    assert np.array_equal(dataset.val, dataset.tokenizer.encode(val))
    assert dataset.tokenizer.decode(dataset.train) == train
    assert (dataset.train_bytes, dataset.val_bytes) == (len(train.encode()), len(val.encode()))
    assert (dataset.train_tokens, dataset.val_tokens) == (len(dataset.train), len(dataset.val))
    assert dataset.documents == 1
    assert dataset.source == str(file)
    assert dataset.bytes == len(LINES.encode())
    assert dataset.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    for split in (dataset.train, dataset.val):
        assert isinstance(split, np.memmap)
        assert split.dtype == np.dtype("<u2")
        with pytest.raises(ValueError, match="read-only"):
            split[0] = 1


def test_the_split_is_that_of_nanogpt(tmp_path):
    """tinyshakespeare: 1003854 characters to train, 111540 to validate."""
    dataset = prepare(
        memory_corpus(["x" * 1_115_394]),
        tokenizer="byte",
        vocab_size=None,
        val_fraction=0.1,
        cache=tmp_path,
        context_length=256,
    )
    assert (dataset.train_bytes, dataset.val_bytes) == (1_003_854, 111_540)


def memory_corpus(texts: list[str]) -> Corpus:
    return Corpus("m", "m", (), lambda: (Document("m", [text.encode()]) for text in texts))


def test_documents_are_followed_by_the_separator(folder, tmp_path):
    a, c, d = LINES[:5000], LINES[5000:5003], LINES[:900]
    dataset = prepared(folder, tmp_path)
    assert dataset.documents == 3
    boundary = int(5903 * (1 - 0.1)) - 5003
    assert bytes(dataset.train.tolist()) == f"{a}\0{c}\0{d[:boundary]}".encode()
    assert bytes(dataset.val.tolist()) == f"{d[boundary:]}\0".encode()
    assert dataset.train_bytes + dataset.val_bytes == dataset.bytes
    bpe = prepared(folder, tmp_path, tokenizer="bpe", vocab_size=300)
    assert np.count_nonzero(bpe.train == 0) == 2
    assert np.count_nonzero(bpe.val == 0) == 1
    char = prepared(folder, tmp_path, tokenizer="char")
    assert char.tokenizer.decode(char.train) == a + c + d[:boundary]
    end = char.tokenizer.end_of_text
    assert np.flatnonzero(char.train == end).tolist() == [len(a), len(a + c) + 1]
    assert char.val[-1] == end


def test_a_separator_at_the_split_stays_with_its_document(tmp_path):
    dataset = prepare(
        memory_corpus(["abcde", "fghij"]),
        tokenizer="byte",
        vocab_size=None,
        val_fraction=0.5,
        cache=tmp_path,
        context_length=2,
    )
    assert bytes(dataset.train.tolist()) == b"abcde\0"
    assert bytes(dataset.val.tolist()) == b"fghij\0"


def test_bpe_has_not_seen_the_validation_text(file, tmp_path):
    boundary = int(len(LINES) * (1 - 0.25))
    expected = build_tokenizer("bpe", lambda: iter([LINES[:boundary]]), 280)
    dataset = prepared(file, tmp_path, tokenizer="bpe", vocab_size=280, val_fraction=0.25)
    assert dataset.tokenizer.to_json() == expected.to_json()


def test_char_has_seen_all_of_it(tmp_path):
    (tmp_path / "text.txt").write_text("a" * 90 + "b" * 10)
    dataset = prepared(tmp_path / "text.txt", tmp_path, tokenizer="char")
    assert dataset.tokenizer.vocab_size == 2


def test_cleaning_is_applied_before_the_split(file, tmp_path):
    dataset = prepared(file, tmp_path, cleaning=["nfkc"])
    text = LINES.replace("²", "2")
    tokens = [*dataset.train.tolist(), *dataset.val.tolist()]
    assert bytes(tokens) == text.encode()
    assert dataset.bytes == len(LINES.encode()), "the raw bytes"
    assert dataset.train_bytes + dataset.val_bytes == len(text.encode())


def test_an_existing_tokenizer_is_used(file, tmp_path):
    other = build_tokenizer("bpe", lambda: iter(["other text " * 50]), 270)
    dataset = prepared(file, tmp_path, tokenizer=other)
    assert dataset.tokenizer.to_json() == other.to_json()
    assert dataset.tokenizer.decode(dataset.val) == LINES[int(len(LINES) * (1 - 0.1)) :]
    narrow = build_tokenizer("char", lambda: iter(["abc"]))
    with pytest.raises(TokenizerError, match="byte or bpe"):
        prepared(file, tmp_path, tokenizer=narrow)


class WideTokenizer(Tokenizer):
    """A character's id is its code point: more than 16 bits hold."""

    kind = "wide"
    vocab_size = 2**16 + 1
    end_of_text = None

    def encode(self, text):
        return np.array([min(ord(character), 2**16) for character in text], dtype=np.int64)

    def _decode(self, ids):
        return "".join(map(chr, ids))

    def to_json(self):
        return build_tokenizer("byte", lambda: iter([])).to_json()


def test_a_large_vocabulary_takes_32_bits(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("a😀" * 50)
    dataset = prepared(tmp_path / "text.txt", tmp_path, tokenizer=WideTokenizer())
    assert dataset.train.dtype == np.dtype("<u4")
    assert dataset.train.tolist() == [97, 2**16] * 45
    monkeypatch.setattr(WideTokenizer, "vocab_size", 2**16)
    (tmp_path / "text.txt").write_text("\uffff" * 100)
    dataset = prepared(tmp_path / "text.txt", tmp_path, tokenizer=WideTokenizer())
    assert dataset.train.dtype == np.dtype("<u2")
    assert set(dataset.train.tolist()) == {2**16 - 1}


def stamps(tmp_path):
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_ino)
        for entry in entries(tmp_path)
        for path in entry.iterdir()
    }


@pytest.fixture
def no_encoding(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("built again")

    return lambda: monkeypatch.setattr(shards, "_build", refuse)


def test_an_entry_is_reused_not_built_again(file, tmp_path, no_encoding):
    first = prepared(file, tmp_path, tokenizer="bpe", vocab_size=300)
    before = stamps(tmp_path)
    assert sorted(path.name for path in before) == [
        "meta.json", "tokenizer.json", "train.bin", "val.bin",
    ]  # fmt: skip
    no_encoding()
    second = prepared(file, tmp_path, tokenizer="bpe", vocab_size=300)
    assert stamps(tmp_path) == before
    assert np.array_equal(first.train, second.train)
    for field in dataclasses.fields(first):
        if field.name not in ("train", "val", "tokenizer"):
            assert getattr(first, field.name) == getattr(second, field.name)
    # The same text elsewhere is the same entry, and reports where it came from this time.
    copy = file.rename(tmp_path / "renamed.txt")
    third = prepared(copy, tmp_path, tokenizer="bpe", vocab_size=300)
    assert third.source == str(copy)
    assert third.train.filename == first.train.filename


def test_changed_data_is_noticed_even_with_the_same_size_and_time(file, tmp_path):
    prepared(file, tmp_path)
    times = file.stat()
    file.write_bytes(b"L" + file.read_bytes()[1:])
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert prepared(file, tmp_path).train[0] == ord("L")
    assert len(entries(tmp_path)) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"val_fraction": 0.2},
        {"cleaning": ["whitespace"]},
        {"tokenizer": "char"},
        {"tokenizer": "bpe", "vocab_size": 300},
        {"tokenizer": "bpe", "vocab_size": 301},
    ],
)
def test_everything_that_matters_makes_another_entry(file, tmp_path, changes):
    prepared(file, tmp_path)
    prepared(file, tmp_path, tokenizer="bpe", vocab_size=302)
    prepared(file, tmp_path, **changes)
    assert len(entries(tmp_path)) == 3


def test_the_context_length_does_not(file, tmp_path, no_encoding):
    prepared(file, tmp_path, context_length=8)
    no_encoding()  # from here on encoding anything fails the test
    prepared(file, tmp_path, context_length=16)
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("name", ["meta.json", "train.bin", "val.bin", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "longer", "other", "one byte"])
def test_a_damaged_entry_is_rebuilt(file, tmp_path, name, damage, caplog):
    first = prepared(file, tmp_path, tokenizer="bpe", vocab_size=300)
    train, tokenizer = first.train.tolist(), first.tokenizer.to_json()
    [entry] = entries(tmp_path)
    whole = {path.name: path.read_bytes() for path in entry.iterdir()}
    content = (entry / name).read_bytes()
    if damage == "missing":
        (entry / name).unlink()
    elif damage == "empty":
        (entry / name).write_bytes(b"")
    elif damage == "longer":
        (entry / name).write_bytes(content + b"{}")
    elif (
        damage == "one byte"
    ):  # of the same size: a token of another number, or JSON of another value
        (entry / name).write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    elif name == "tokenizer.json":  # another tokenizer, whole, in its place
        (entry / name).write_text(build_tokenizer("byte", lambda: iter([])).to_json())
    else:
        (entry / name).write_text(json.dumps({"dtype": "no such"}))
    again = prepared(file, tmp_path, tokenizer="bpe", vocab_size=300)
    if (name, damage) != ("meta.json", "missing"):  # that is an entry which was never finished
        assert f"the token cache {entry} is damaged: it is made anew" in caplog.text
    assert again.train.tolist() == train
    assert again.tokenizer.to_json() == tokenizer
    assert {path.name: path.read_bytes() for path in entry.iterdir()} == whole


def test_an_entry_that_another_process_completes_is_read_again(
    file, tmp_path, monkeypatch, caplog, no_encoding
):
    read, others = shards._read_meta, []

    def read_then_complete(entry):
        meta = read(entry)
        if not others:
            others.append(entry)
            prepared(file, tmp_path)
            no_encoding()
        return meta

    monkeypatch.setattr(shards, "_read_meta", read_then_complete)
    assert prepared(file, tmp_path).documents == 1
    assert "damaged" not in caplog.text


def test_two_processes_shuffle_one_entry_without_harm(file, tmp_path, monkeypatch):
    alone = prepared(file, tmp_path / "alone", split="shuffle")
    whole = {path.name: path.read_bytes() for path in entries(tmp_path / "alone")[0].iterdir()}
    shuffle, others = encoding.shuffle, []

    def complete_then_shuffle(*arguments):
        if not others:
            others.append(arguments)
            prepared(file, tmp_path, split="shuffle")
        return shuffle(*arguments)

    monkeypatch.setattr(encoding, "shuffle", complete_then_shuffle)
    assert prepared(file, tmp_path, split="shuffle").train.tolist() == alone.train.tolist()
    [entry] = entries(tmp_path)
    assert {path.name: path.read_bytes() for path in entry.iterdir()} == whole


def test_a_build_that_fails_leaves_no_complete_entry(file, tmp_path, monkeypatch):
    def stop(self, tokens):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(encoding._OpenShard, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            prepared(file, tmp_path, tokenizer="bpe", vocab_size=300)
    [entry] = entries(tmp_path)
    assert [path.name for path in entry.iterdir()] == ["tokenizer.json"]
    # What was finished, the tokenizer, is not made again.
    monkeypatch.setattr(shards, "build_tokenizer", None)
    assert prepared(file, tmp_path, tokenizer="bpe", vocab_size=300).documents == 1


def test_text_that_changes_while_it_is_read_is_refused(tmp_path):
    texts = iter(["abc" * 50, "abc" * 50, "abd" * 50])
    corpus = Corpus("m", "m", (), lambda: memory_corpus([next(texts)]).documents())
    with pytest.raises(CorpusError, match="changed while it was read"):
        prepare(
            corpus,
            tokenizer="byte",
            vocab_size=None,
            val_fraction=0.1,
            cache=tmp_path,
            context_length=4,
        )
    assert not list(tmp_path.glob("tokens/*/*.bin"))


PREPARE = """
import resource, sys
from pathlib import Path
from minilm.data.shards import prepare
from minilm.text.corpora import open_corpus
source, cache, kind, vocab_size = sys.argv[1:]
settings = dict(vocab_size=int(vocab_size) or None, val_fraction=0.1, context_length=8)
small = open_corpus(source + ".small", cache=Path(cache))
prepare(small, tokenizer=kind, cache=Path(cache), **settings)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
corpus = open_corpus(source, cache=Path(cache))
dataset = prepare(corpus, tokenizer=kind, cache=Path(cache), **settings)
growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(growth, dataset.train_tokens, dataset.val_tokens)
"""


def start(source, cache, kind, vocab_size):
    command = [sys.executable, "-c", PREPARE, str(source), str(cache), kind, str(vocab_size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_memory_is_bounded_and_nothing_is_printed(tmp_path):
    block = (LINES * 60).encode()
    copies = 60 * 2**20 // len(block)
    with (tmp_path / "large.txt").open("wb") as stream:
        for _ in range(copies):
            stream.write(block)
    (tmp_path / "large.txt.small").write_text(LINES[:2000])
    process = start(tmp_path / "large.txt", tmp_path / "cache", "byte", 0)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    growth, train, val = map(int, output.split())
    assert train + val == copies * len(block)
    assert growth * (1 if sys.platform == "darwin" else 1024) < 30 * 2**20


def test_two_processes_at_once_build_one_whole_entry(file, tmp_path):
    (tmp_path / "text.txt.small").write_text(LINES[:2000])
    processes = [start(file, tmp_path / "cache", "bpe", 400) for _ in range(3)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    assert len({output.split(maxsplit=1)[1] for output, _ in results}) == 1
    for entry in entries(tmp_path):
        assert sorted(path.name for path in entry.iterdir()) == [
            "meta.json", "tokenizer.json", "train.bin", "val.bin",
        ]  # fmt: skip
    dataset = prepared(file, tmp_path, tokenizer="bpe", vocab_size=400)
    boundary = int(len(LINES) * (1 - 0.1))
    assert dataset.tokenizer.decode(dataset.train) == LINES[:boundary]


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan")])
def test_an_impossible_fraction(file, tmp_path, fraction):
    with pytest.raises(CorpusError, match=r"--val-fraction: .*expected 0 < fraction <= 1"):
        prepared(file, tmp_path, val_fraction=fraction)


def test_all_of_a_text_may_validate(file, tmp_path):
    dataset = prepared(file, tmp_path, val_fraction=1, context_length=10**9)
    assert dataset.tokenizer.decode(dataset.val) == LINES
    assert (dataset.train_tokens, dataset.train_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("fraction", "context_length", "message"),
    [
        (0.01, 10, "1 token for validation with --val-fraction 0.01, expected at least 2"),
        (0.9, 10, "9 training tokens with --val-fraction 0.9, expected at least 11"),
        (0.999, 4, "0 training tokens"),
    ],
)
def test_too_little_text(tmp_path, fraction, context_length, message):
    (tmp_path / "text.txt").write_text("x" * 100)
    for _ in range(2):  # built, then reused
        with pytest.raises(CorpusError) as caught:
            prepared(
                tmp_path / "text.txt",
                tmp_path,
                val_fraction=fraction,
                context_length=context_length,
            )
        assert message in str(caught.value)
        assert "use more data or a " in str(caught.value)


def test_just_enough_text(tmp_path):
    (tmp_path / "text.txt").write_text("x" * 100)
    assert prepared(tmp_path / "text.txt", tmp_path, context_length=9).val_tokens == 10


def test_nothing_left_after_cleaning(tmp_path):
    (tmp_path / "page.html").write_text("<script>all of it</script>")
    with pytest.raises(CorpusError, match="no text after --clean html"):
        prepared(tmp_path / "page.html", tmp_path, cleaning=["html"])
    assert not list(tmp_path.rglob("tokens/*"))


def test_a_cache_that_cannot_be_written(file, tmp_path):
    (tmp_path / "blocked").write_text("in the way")
    with pytest.raises(InputError, match=r"blocked.* cannot be written .*MINILM_CACHE"):
        prepared(file, tmp_path, cache=tmp_path / "blocked" / "cache")


def test_a_disk_that_is_full(file, tmp_path, monkeypatch):
    def full(self, tokens):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoding._OpenShard, "write", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        prepared(file, tmp_path)


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("MINILM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache() == Path("/home/someone/.cache/minilm")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache() == Path("/xdg/minilm")
    monkeypatch.setenv("MINILM_CACHE", "~/here")
    assert default_cache() == Path("/home/someone/here")
    monkeypatch.setenv("MINILM_CACHE", "")
    assert default_cache() == Path("/xdg/minilm")


def test_a_user_without_a_home_directory_is_told_what_to_set(monkeypatch):
    def no_such_user(uid):
        raise KeyError(uid)

    for variable in ("HOME", "MINILM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_such_user)
    with pytest.raises(InputError, match=r"no home directory, .*; set MINILM_CACHE to one"):
        default_cache()
    monkeypatch.setenv("MINILM_CACHE", "/cache")
    assert default_cache() == Path("/cache")


def test_texts_that_are_null_are_counted(tmp_path, caplog):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": null}\n' * 3 + f'{{"text": "{"a" * 500}"}}\n')
    (folder / "b.jsonl").write_text('{"text": null}\n')
    with caplog.at_level("INFO"):
        assert prepared(folder, tmp_path).documents == 1
    assert "a.jsonl and 1 more: null in place of a text is left out (4 records)" in caplog.text
    (folder / "a.jsonl").unlink()
    with pytest.raises(CorpusError, match=r"texts: no text, null in 1 record, expected text"):
        prepared(folder, tmp_path)
