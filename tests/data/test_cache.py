"""The token cache: what it says it holds, and that pruning removes the right entries and nothing else."""

import os
import shutil
import time
from pathlib import Path

import pytest

from minilm.cli.cache import main
from minilm.data import cache as cache_module
from minilm.data.cache import CacheEntry, prune, read_entries, size_limit
from minilm.data.shards import find, prepare
from minilm.errors import InputError
from minilm.files import temporary_name
from minilm.generation import tuning
from minilm.text.corpora import open_corpus
from minilm.text.tokenizer_training import build_tokenizer


@pytest.fixture
def keys(tmp_path: Path) -> list[str]:
    """Three entries of about 2 kB of tokens each, the first not used for longest."""
    keys = []
    for number in range(3):
        path = tmp_path / f"{number}.txt"
        path.write_text(f"text {number}\n" * 125)
        keys.append(store(path, tmp_path / "cache").key)
    for number, key in enumerate(keys):
        os.utime(tmp_path / "cache" / "tokens" / key, (1e9 + number, 1e9 + number))
    return keys


def store(path: Path, cache: Path):
    return prepare(
        open_corpus(str(path), cache=cache),
        tokenizer="byte",
        vocab_size=None,
        val_fraction=0.1,
        cache=cache,
        context_length=4,
    )


def test_what_was_not_used_for_longest_is_removed_first(tmp_path: Path, keys: list[str]) -> None:
    cache = tmp_path / "cache"
    entries = read_entries(cache)
    assert [entry.path.name for entry in entries] == keys[::-1]
    assert all(entry.tokens == 125 * 7 for entry in entries)
    assert entries[0].source == str(tmp_path / "2.txt")
    store(tmp_path / "0.txt", cache)  # used again
    (removed,) = prune(cache, sum(entry.bytes for entry in entries) - 1)
    assert removed.path.name == keys[1]
    assert {entry.path.name for entry in read_entries(cache)} == {keys[0], keys[2]}
    assert [entry.path.name for entry in prune(cache, 0, keep=keys[0])] == [keys[2]]
    assert len(prune(cache, 0)) == 1


def test_only_what_is_written_there_is_removed(tmp_path: Path, keys: list[str]) -> None:
    tokens = tmp_path / "cache" / "tokens"
    (tokens / "notes").mkdir()
    (tokens / keys[0] / "mine.txt").write_text("x")
    (tokens / keys[1] / temporary_name("train.bin")).write_bytes(b"of a killed process")
    in_the_making = tokens / ("0" * 64)
    in_the_making.mkdir()
    prune(tmp_path / "cache", 0)
    assert sorted(path.name for path in tokens.iterdir()) == sorted(
        [keys[0], "notes", in_the_making.name]
    )
    assert [path.name for path in (tokens / keys[0]).iterdir()] == ["mine.txt"]
    old = time.time() - 2 * 24 * 3600
    os.utime(in_the_making, (old, old))
    prune(tmp_path / "cache", -1)
    assert not in_the_making.exists()


def test_the_tokenizer_of_a_mixture_is_listed_used_and_removed_as_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    for name in "ab":
        (tmp_path / name).write_text(f"text {name}\n" * 125)
    source = f"mix:{tmp_path / 'a'}=1;{tmp_path / 'b'}=1"
    monkeypatch.setenv("MINILM_CACHE", str(cache))

    def mixture() -> Path:
        """The folder of its tokenizer."""
        settings = {"vocab_size": 260, "val_fraction": 0.1, "context_length": 4}
        prepare(open_corpus(source, cache=cache), tokenizer="bpe", cache=cache, **settings)
        (tokenizer,) = (entry.path for entry in read_entries(cache) if entry.tokens is None)
        return tokenizer

    entry = mixture()
    os.utime(entry, (1e9, 1e9))
    assert mixture() == entry
    assert entry.stat().st_mtime > 1e9, "used again"
    assert main([]) == 0
    output = capsys.readouterr().out
    assert output.count("  a tokenizer  ") == 1
    assert "2 texts" in output
    assert main(["--prune", "0"]) == 0
    output = capsys.readouterr().out
    assert (output.count("removed  "), output.count("  a tokenizer  ")) == (3, 1)
    assert read_entries(cache) == []


def test_what_killed_processes_left_goes_with_time(tmp_path: Path, keys: list[str]) -> None:
    entry = tmp_path / "cache" / "tokens" / keys[0]
    left, new = (entry / temporary_name("train-2.bin") for _ in range(2))
    other = entry / ".mine.txt.tmp"
    for path in (left, new, other):
        path.write_bytes(b"half of it")
    for path in (left, other):
        os.utime(path, (1e9, 1e9))
    assert prune(tmp_path / "cache", 2**40) == []
    assert not left.exists()
    assert new.exists()
    assert other.exists()
    assert len(read_entries(tmp_path / "cache")) == 3


def test_an_entry_that_another_process_removes_is_left_out(
    tmp_path: Path, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, read = tmp_path / "cache", cache_module._read

    def remove_first(path: Path) -> CacheEntry:
        if path.name == keys[0]:
            shutil.rmtree(path)
        return read(path)

    monkeypatch.setattr(cache_module, "_read", remove_first)
    assert [entry.path.name for entry in read_entries(cache)] == [keys[2], keys[1]]
    monkeypatch.undo()
    entries = read_entries(cache)
    monkeypatch.setattr(cache_module, "read_entries", lambda _: entries)
    shutil.rmtree(cache / "tokens" / keys[1])
    assert [entry.path.name for entry in prune(cache, 0)] == [keys[1], keys[2]]


def test_a_new_entry_keeps_the_cache_below_its_limit(
    tmp_path: Path, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINILM_CACHE_SIZE", "1KB")
    (tmp_path / "3.txt").write_text("text 3\n" * 400)
    key = store(tmp_path / "3.txt", tmp_path / "cache").key
    assert [entry.path.name for entry in read_entries(tmp_path / "cache")] == [key]
    monkeypatch.setenv("MINILM_CACHE_SIZE", "much")
    with pytest.raises(InputError, match="MINILM_CACHE_SIZE: 'much'"):
        size_limit()


def test_tokens_are_found_by_their_key_where_text_and_tokenizer_agree(
    tmp_path: Path, keys: list[str]
) -> None:
    cache, byte = tmp_path / "cache", build_tokenizer("byte", lambda: iter([]))
    stored = store(tmp_path / "0.txt", cache)
    (tmp_path / "0.txt").unlink()
    dataset = find(cache, keys[0], tokenizer=byte, sha256=stored.sha256)
    assert dataset is not None
    assert dataset.train.tolist() == stored.train.tolist()
    assert (dataset.bytes, dataset.val_bytes) == (stored.bytes, stored.val_bytes)
    other = build_tokenizer("char", lambda: iter(["text 0\n"]))
    assert find(cache, keys[0], tokenizer=other, sha256=stored.sha256) is None
    assert find(cache, keys[0], tokenizer=byte, sha256="0" * 64) is None
    assert find(cache, "../tokens/" + keys[0], tokenizer=byte, sha256=stored.sha256) is None
    (cache / "tokens" / keys[0] / "train.bin").write_bytes(b"cut")
    assert find(cache, keys[0], tokenizer=byte, sha256=stored.sha256) is None


def test_the_verb_lists_and_removes(
    tmp_path: Path,
    keys: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MINILM_CACHE", str(tmp_path / "cache"))
    assert main([]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [key[:12] for key in keys[::-1]]
    assert lines[0].endswith(str(tmp_path / "2.txt"))
    entry = tmp_path / "cache" / "tokens" / ("0" * 64)
    entry.mkdir()
    assert main([]) == 0
    assert "  unfinished  " in capsys.readouterr().out
    shutil.rmtree(entry)
    assert "3 texts" in total
    assert "20.0 GiB (MINILM_CACHE_SIZE)" in total
    copy = tmp_path / "cache" / "datasets" / f"{'ab' * 8}.jsonl"
    copy.parent.mkdir()
    copy.write_text('{"text": "once"}\n')
    assert main([]) == 0
    *lines, total, copies = capsys.readouterr().out.splitlines()
    assert lines[-1].split()[:5] == ["abababababab", "17", "bytes", "a", "dataset"]
    assert "1 copy of datasets, 17 bytes; removed by --prune alone" in copies
    assert main(["--prune", "0"]) == 0
    assert capsys.readouterr().out.count("removed  ") == 4
    assert not copy.exists()
    copy.write_text("{}\n")
    assert prune(tmp_path / "cache", 0) == [], "the limit is of tokens"
    assert copy.exists()
    assert main(["--prune", "small"]) == 2
    assert "error: --prune: 'small'" in capsys.readouterr().err
    monkeypatch.setenv("MINILM_CACHE", str(tmp_path / "none"))
    assert main([]) == 0
    assert "0 texts, 0 bytes" in capsys.readouterr().out


def test_choices_that_were_measured_are_listed_and_removed_on_request_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINILM_CACHE", str(tmp_path))
    for question in "ab":
        tuning.choose(question, [("one", lambda: None)])
    path = tmp_path / tuning.TUNING
    line = f"{path}: 2 choices of dtype, attention and products, measured; removed by"
    for arguments in ([], ["--prune", "0"]):
        assert main(arguments) == 0
        assert line in capsys.readouterr().out
    path.write_text("[1]")
    assert main([]) == 0
    assert f"{path}: 0 choices of" in capsys.readouterr().out
    tuning.choose("a", [("one", lambda: None)])
    for said in (f"removed  {path}, 1 choice\n", ""):
        assert main(["--forget-tuning"]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith(said)
        assert printed.count(tuning.TUNING) == bool(said)
        assert not path.exists()


def test_a_cache_that_is_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    monkeypatch.setenv("MINILM_CACHE", str(path))
    assert main(["--prune", "0"]) == 2
    assert f"MINILM_CACHE: {path}, a file, expected a folder" in capsys.readouterr().err
    assert path.read_text() == "mine"
