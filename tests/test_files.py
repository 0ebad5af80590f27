"""Atomic writes: whole or absent, modes by umask, nothing left behind."""

import json
import os
import stat
from pathlib import Path

import pytest

from minilm import files


def test_replaces_whole_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})
    files.write_json(path, {"new": "é"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"new": "é"}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_failure_keeps_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")

    def interrupted() -> None:
        with files.atomic_writer(path) as stream:
            stream.write(b"half of the new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_failure_names_the_file_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "none" / "x.json", Path("none/x.json"), tmp_path / "folder"):
        with pytest.raises(OSError, match="directory") as caught:
            files.write_bytes(path, b"")
        assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == ["folder"]


def test_a_failure_elsewhere_names_its_own_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, files.atomic_writer(tmp_path / "x.json"):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other")


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_mode_follows_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        files.write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_nan_is_not_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert os.listdir(tmp_path) == []
