"""A corpus in several files of tokens: those of one file, also after a kill at any point."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minilm.data import encoding, shards
from minilm.data.cache import prune
from minilm.data.encoding import JOURNAL
from minilm.data.shards import prepare
from minilm.data.token_store import ShardedTokens
from minilm.errors import InputError, TokenizerError
from minilm.files import temporary_name
from minilm.text import parallel_encoding, tokenizer_training
from minilm.text.corpora import open_corpus
from minilm.text.parallel_encoding import encode_in_order
from minilm.text.tokenizer_training import build_tokenizer
from minilm.text.tokenizers import BPETokenizer, ByteTokenizer

SPLITS = ("position", "document", "shuffle")
WIDTH = 2  # bytes of a token


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Text, and JSON Lines, of 200 documents of some 160 characters; two more are null."""
    texts = [
        " ".join(f"word{i * j % 97} naïve" for j in range(1, 14)) + f" {i}" for i in range(200)
    ]
    path = tmp_path / "texts"
    path.mkdir()
    (path / "a.txt").write_text("<|endoftext|>".join(texts[:60]), encoding="utf-8")
    lines = [json.dumps({"text": text}) for text in texts[60:]]
    lines[20:20] = lines[90:90] = ['{"text": null}']
    (path / "b.jsonl").write_text("\n".join(lines))
    return path


def prepared(folder: Path, cache: Path, split: str = "position"):
    return prepare(
        open_corpus(str(folder), cache=cache),
        tokenizer="bpe",
        vocab_size=300,
        val_fraction=0.2,
        cache=cache,
        context_length=8,
        split=split,
    )


def files(cache: Path) -> dict[str, bytes]:
    (entry,) = (cache / "tokens").iterdir()
    return {path.name: path.read_bytes() for path in entry.iterdir()}


def test_bpe_of_a_large_text_is_trained_on_a_part_of_it(folder, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    whole = prepared(folder, tmp_path / "whole", "position")
    assert "BPE is trained" not in caplog.text
    monkeypatch.setattr(BPETokenizer, "CHUNK_CHARACTERS", 200)
    for module in (shards, tokenizer_training):
        monkeypatch.setattr(module, "BPE_CHARACTERS", 8000)
    part = prepared(folder, tmp_path / "part", "position")
    assert "note: BPE is trained on one in 5 of " in caplog.text
    assert part.key != whole.key
    assert part.tokenizer.to_json() != whole.tokenizer.to_json()


@pytest.mark.parametrize("split", SPLITS)
def test_several_files_have_the_tokens_of_one(
    folder: Path, tmp_path: Path, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepared(folder, tmp_path / "one", split)
    monkeypatch.setattr(encoding, "SHARD_BYTES", 2**11)
    several = prepared(folder, tmp_path / "several", split)
    assert isinstance(several.train, ShardedTokens)
    for part in ("train", "val"):
        assert np.array_equal(getattr(several, part)[:], getattr(whole, part))
    assert (several.train_bytes, several.val_bytes) == (whole.train_bytes, whole.val_bytes)
    contents = files(tmp_path / "several")
    assert {"train.bin", "train-1.bin", "train-2.bin", "val.bin"} < contents.keys()
    assert not [name for name in contents if name.startswith((JOURNAL, "unshuffled"))]
    bins = [len(content) for name, content in contents.items() if name.endswith(".bin")]
    assert min(bins) > 0
    assert max(bins) < 2**11 + len((folder / "a.txt").read_bytes()) * WIDTH
    assert prepared(folder, tmp_path / "several", split).key == several.key


@pytest.mark.parametrize("split", SPLITS)
def test_one_that_was_stopped_continues_after_its_last_file(
    folder: Path, tmp_path: Path, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each journal that is written, and in the middle of the file after it."""
    monkeypatch.setattr(encoding, "SHARD_BYTES", 2**12)
    prepared(folder, tmp_path / "undisturbed", split)
    encode, journals, encoded = BPETokenizer.encode, [], []

    def stop_after_journal(self: BPETokenizer, text: str):
        (entry,) = (tmp_path / "cache" / "tokens").iterdir()
        journal = entry / JOURNAL
        if journal.exists() and journal.read_bytes() not in journals:
            journals.append(journal.read_bytes())
            raise KeyboardInterrupt
        encoded.append(text)
        return encode(self, text)

    monkeypatch.setattr(BPETokenizer, "encode", stop_after_journal)
    interruptions = 0
    for _ in range(100):
        try:
            prepared(folder, tmp_path / "cache", split)
            break
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions == len(journals) > 2
    assert files(tmp_path / "cache") == files(tmp_path / "undisturbed")
    assert len(encoded) == len(set(encoded)), "no text was encoded twice"


@pytest.mark.parametrize("damage", ["file", "journal", "tokenizer"])
def test_what_is_not_as_the_journal_says_is_made_again(
    folder: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "SHARD_BYTES", 2**12)
    prepared(folder, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_json", lambda *arguments: exec_stop())
        with pytest.raises(KeyboardInterrupt):
            prepared(folder, tmp_path / "cache")
    (entry,) = (tmp_path / "cache" / "tokens").iterdir()
    name = {"file": "train.bin", "journal": JOURNAL, "tokenizer": "tokenizer.json"}[damage]
    content = (entry / name).read_bytes()
    (entry / name).write_bytes(content[:-9] + b"x" + content[-8:])
    prepared(folder, tmp_path / "cache")
    assert files(tmp_path / "cache") == files(tmp_path / "undisturbed")


def exec_stop() -> None:
    raise KeyboardInterrupt


KILLED = """
import sys, time
from pathlib import Path
from minilm.data import encoding
from minilm.data.shards import prepare
from minilm.text.corpora import open_corpus
folder, cache, processes = sys.argv[1:]
encoding.SHARD_BYTES, encoding.PARALLEL_BYTES = 2**12, 0
encoding.available_processors = lambda: int(processes)
add = encoding._add
def slow(*arguments):
    time.sleep(0.004)
    return add(*arguments)
encoding._add = slow
prepare(open_corpus(folder, cache=Path(cache)), tokenizer="bpe", vocab_size=300, val_fraction=0.2,
        cache=Path(cache), context_length=8)
"""


def test_a_process_that_is_killed_leaves_what_another_continues(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL with two encoding processes, which end too; what continues has the same bytes without any."""
    cache = tmp_path / "cache"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), str(cache), "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        deadline = time.monotonic() + 60
        while not list(cache.glob(f"tokens/*/{JOURNAL}")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        # Its children have these pipes too, which end with the last of them.
        assert process.communicate(timeout=30) == (b"", b"")
    assert JOURNAL in files(cache)
    assert "meta.json" not in files(cache)
    monkeypatch.setattr(encoding, "SHARD_BYTES", 2**12)
    continued = prepared(folder, cache)
    whole = prepared(folder, tmp_path / "undisturbed")
    assert files(cache).keys() >= files(tmp_path / "undisturbed").keys()
    for name, content in files(tmp_path / "undisturbed").items():
        assert files(cache)[name] == content
    assert continued.key == whole.key


def test_processes_give_the_tokens_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_encoding, "BATCH_CHARACTERS", 1000)
    texts = [f"text {i} naïve " * (i % 7) for i in range(120)]
    bpe = build_tokenizer("bpe", lambda: iter(texts), 300)
    bpe.save(tmp_path / "tokenizer.json")
    arguments = {"tokenizer": tmp_path / "tokenizer.json", "dtype": np.dtype("<u2"), "processes": 2}
    results = list(encode_in_order(texts, str, **arguments))
    assert [text for text, _ in results] == texts
    for text, tokens in results:
        assert tokens.dtype == np.dtype("<u2")
        assert tokens.tolist() == bpe.encode(text).tolist()
    with pytest.raises(TokenizerError, match=r"U\+D800|surrogate"):
        list(encode_in_order(["a", "\ud800"], str, **arguments))
    # One that is killed is said in a line.
    stream = encode_in_order(iter(texts), str, **arguments)
    next(stream)
    with monkeypatch.context() as patch:
        patch.setattr(parallel_encoding, "_send", lambda worker, texts: worker.kill())
        with pytest.raises(InputError, match="a process that ended with status -9"):
            list(stream)


def test_an_entry_of_earlier_versions_is_read(folder: Path, tmp_path: Path) -> None:
    dataset = prepared(folder, tmp_path)
    (entry,) = (tmp_path / "tokens").iterdir()
    meta = json.loads((entry / "meta.json").read_text())
    for split, (shard,) in meta.pop("shards").items():
        meta[f"{split}_sha256"] = shard["sha256"]
    (entry / "meta.json").write_text(json.dumps(meta))
    before = (entry / "train.bin").stat().st_ino
    again = prepared(folder, tmp_path)
    assert again.train.tolist() == dataset.train.tolist()
    assert (entry / "train.bin").stat().st_ino == before
    (entry / "val.bin").write_bytes((entry / "val.bin").read_bytes()[:-2] + b"\1\0")
    prepared(folder, tmp_path)
    assert "shards" in json.loads((entry / "meta.json").read_text()), "damaged: made anew"


def test_tokens_of_several_arrays_read_as_one(tmp_path: Path) -> None:
    parts = [np.arange(0, 5), np.arange(5, 6), np.arange(6, 20)]
    for number, part in enumerate(parts):
        part.astype("<u2").tofile(tmp_path / f"{number}.bin")
    tokens = ShardedTokens([np.memmap(tmp_path / f"{n}.bin", "<u2", "r") for n in range(3)])
    whole = np.arange(20, dtype="<u2")
    assert len(tokens) == 20
    for start in range(21):
        for stop in range(21):
            assert np.array_equal(tokens[start:stop], whole[start:stop])
    assert tokens[:].dtype == tokens.dtype == whole.dtype
    assert (tokens[5], tokens[-1], tokens[-3:].tolist()) == (5, 19, [17, 18, 19])
    assert np.array_equal(np.asarray(tokens), whole)
    assert list(tokens) == list(whole)
    with pytest.raises(IndexError):
        tokens[20]


def test_units_are_shuffled_over_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not within a buffer, which leaves neighbours near each other."""
    monkeypatch.setattr(encoding, "SHARD_BYTES", 2**11)
    lines, width = 4000, len("0000\n")
    (tmp_path / "ids.txt").write_text("".join(f"{i:04}\n" for i in range(lines)))
    dataset = prepare(
        open_corpus(str(tmp_path / "ids.txt"), cache=tmp_path),
        tokenizer="byte",
        vocab_size=None,
        val_fraction=0.1,
        cache=tmp_path / "cache",
        context_length=8,
        split="shuffle",
    )
    assert len(list((tmp_path / "cache").glob("tokens/*/train*.bin"))) > 15
    sides = [bytes(side[:].tolist()).decode().split() for side in (dataset.train, dataset.val)]
    assert len(dataset.train) + len(dataset.val) == lines * width
    assert sorted(sides[0] + sides[1]) == [f"{i:04}" for i in range(lines)]
    ids = np.array(sides[0], dtype=np.int64)
    distance = np.abs(np.diff(ids)).mean()
    assert abs(distance - lines / 3) < lines / 30, "that of any two of a uniform order"


def test_pruning_removes_what_a_stopped_preparation_left(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    prepared(folder, cache)
    (entry,) = (cache / "tokens").iterdir()
    names = ["train-12.bin", JOURNAL, "unshuffled-val.bin", "unshuffled-train-3.ends"]
    for name in [*names, temporary_name("train-13.bin"), "mine.bin"]:
        (entry / name).write_bytes(b"")
    prune(cache, -1)
    assert [path.name for path in entry.iterdir()] == ["mine.bin"]


def test_a_half_line_of_a_killed_process_is_answered_with_nothing(tmp_path: Path) -> None:
    ByteTokenizer().save(tmp_path / "tokenizer.json")
    ended = subprocess.run(
        [
            *(sys.executable, "-c", parallel_encoding._PROCESS, *sys.path),
            *(tmp_path / "tokenizer.json", "uint8"),
        ],
        input=b'["ab"]\n["c',
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == b'{"lengths": [2]}\nab'
