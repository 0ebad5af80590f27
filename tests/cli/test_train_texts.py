"""The train command on the texts that users have: which are read, how, and paths that are not UTF-8."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minilm.checkpoint import load
from minilm.cli import generate
from minilm.cli.train import main
from tests.cli.test_train import TINY
from tests.conftest import make_text

Capture = pytest.CaptureFixture[str]

STORY = make_text(2000)
PARTS = STORY.splitlines(keepends=True)


@pytest.fixture
def train(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Trains on a file with the content, and gives the run."""
    monkeypatch.setenv("MINILM_CACHE", str(cache))

    def run(name: str, content: bytes, *options: str, status: int = 0) -> Path:
        (tmp_path / name).write_bytes(content)
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        arguments = ["--data", str(tmp_path / name), "--run-dir", str(folder), *TINY]
        assert main([*arguments, "--max-steps", "2", *options]) == status
        return folder

    return run


def tokens_of(run: Path) -> tuple[int, int]:
    data = json.loads((run / "summary.json").read_text())["data"]
    return data["train_tokens"], data["val_tokens"]


def test_line_ends_and_encodings_give_the_same_tokens(
    train: Callable[..., Path], capsys: Capture
) -> None:
    plain = tokens_of(train("plain.txt", STORY.encode()))
    windows = STORY.replace("\n", "\r\n")
    assert "note:" not in capsys.readouterr().err
    for content, note in [
        (windows.encode(), r"line ends \r\n and \r are read as \n"),
        (b"\xef\xbb\xbf" + STORY.encode(), ""),
        (("\ufeff" + windows).encode("utf-16-le"), "decoded as UTF-16-LE"),
        (STORY.encode("utf-16-be"), "decoded as UTF-16-BE"),
    ]:
        assert tokens_of(train("other.txt", content)) == plain
        assert note in capsys.readouterr().err
    raw = tokens_of(train("windows.txt", windows.encode(), "--raw-text"))
    assert sum(raw) == sum(plain) + STORY.count("\n")


def test_records_and_separators_give_the_same_documents(
    train: Callable[..., Path], capsys: Capture
) -> None:
    with_separators = "<|endoftext|>\n".join(PARTS).encode()
    expected = tokens_of(train("stories.txt", with_separators))
    rows = [{"id": i, "body": part} for i, part in enumerate(PARTS)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    assert tokens_of(train("rows.jsonl", lines)) == expected
    assert "documents are the field 'body'" in capsys.readouterr().err
    array = json.dumps([row | {"title": "x"} for row in rows]).encode()
    assert tokens_of(train("rows.json", array, "--text-field", "body")) == expected
    table = "id,body\n" + "".join(f'{i},"{part}"\n' for i, part in enumerate(PARTS))
    assert tokens_of(train("rows.csv", table.encode(), "--text-field", "body")) == expected
    assert sum(expected) == len(STORY) + len(PARTS), "a token after each document"
    capsys.readouterr()
    train("more.json", array, status=2)
    error = capsys.readouterr().err
    assert "the fields id, body, title, expected a field text" in error
    assert "--text-field" in error


def test_characters_have_a_boundary_between_documents(
    train: Callable[..., Path], capsys: Capture
) -> None:
    run = train("stories.txt", "<|endoftext|>".join(PARTS).encode(), "--tokenizer", "char")
    _, tokenizer = load(run)
    assert tokenizer.end_of_text == tokenizer.vocab_size - 1
    assert sum(tokens_of(run)) == len(STORY) + len(PARTS)
    _, tokenizer = load(train("one.txt", STORY.encode(), "--tokenizer", "char"))
    assert tokenizer.end_of_text is None


def test_the_split_is_an_option_that_a_resumed_run_keeps(
    train: Callable[..., Path], capsys: Capture
) -> None:
    ordered = "".join(sorted(make_text(9000).splitlines(keepends=True))).encode()
    train("sorted.txt", ordered)
    assert "use --split shuffle" in capsys.readouterr().err
    run = train("sorted.txt", ordered, "--split", "shuffle", "--text-field", "x", status=2)
    assert "with plain text" in capsys.readouterr().err
    run = train("sorted.txt", ordered, "--split", "shuffle", "--raw-text")
    assert "unlike" not in capsys.readouterr().err
    before = tokens_of(run)
    assert main(["--resume", "--run-dir", str(run), "--max-steps", "4"]) == 0
    assert tokens_of(run) == before


@pytest.mark.parametrize("clean", [[], ["--clean", "encoding", "control"]])
def test_what_is_no_text_is_refused_however_it_is_cleaned(
    train: Callable[..., Path], capsys: Capture, clean: list[str]
) -> None:
    chinese = "你好，世界。今天天气很好\n" * 500
    train("chinese.txt", chinese.encode("utf-16-le"), *clean, status=2)
    error = capsys.readouterr().err
    assert "iconv" in error
    assert "--clean" not in error


def test_paths_that_are_not_utf_8(
    train: Callable[..., Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    (folder / os.fsdecode(b"x\xe9.txt")).write_text(STORY)
    run = train("plain.txt", STORY.encode())
    shutil.copytree(run, folder / "run")
    new = ["--run-dir", str(tmp_path / "new"), *TINY, "--max-steps", "2"]
    for command, arguments in [
        (main, ["--data", str(folder), *new]),
        (
            main,
            ["--data", str(tmp_path / "plain.txt"), "--init-from", str(folder / "run"), *new[:2]],
        ),
        (main, ["--resume", "--run-dir", str(folder / "run"), "--max-steps", "4"]),
        (main, ["--resume", "--run-dir", str(run), "--data", str(folder), "--max-steps", "4"]),
        (generate.main, [str(folder / "run"), "--prompt", "a"]),
    ]:
        capsys.readouterr()
        status: Any = command(arguments)
        error = capsys.readouterr().err
        assert (status, error.count("\n")) == (2, 1), error
        assert "UTF-8" in error
    monkeypatch.chdir(folder)
    (folder / "a.txt").write_text(STORY)
    assert main(["--data", "a.txt", *new]) == 2, "the path that --resume would need"
    assert not (tmp_path / "new").exists()
    (folder / "texts").mkdir()
    shutil.copy(folder / "a.txt", tmp_path / "plain.txt")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    shutil.copy("plain.txt", os.fsdecode(b"texts/x\xe9.txt"))
    assert main(["--data", "texts", *new]) == 0, "names below a folder are not stored"
