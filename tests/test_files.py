"""Atomic writes: whole or absent, modes by umask, nothing left behind."""

import json
import os
import stat
import threading
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


def test_a_pipe_is_written_into_and_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(path.read_bytes()))
    reader.start()
    files.write_json(path, {"a": 1})
    reader.join(timeout=10)
    assert received == [b'{\n  "a": 1\n}\n']
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stdout", "/proc/self/fd/1"])
def test_devices_and_open_files_are_never_replaced(path: str) -> None:
    assert not files.is_replaceable(Path(path))


def test_a_terminal_is_written_into_and_stays_one() -> None:
    leader, follower = os.openpty()
    name = os.ttyname(follower)
    try:
        files.write_bytes(Path(name), b"report")
        assert os.read(leader, 100) == b"report"
        assert stat.S_ISCHR(os.stat(name).st_mode)
    finally:
        os.close(leader)
        os.close(follower)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "target.json", tmp_path / "link.json"
    if exists:
        target.write_text("old")
    link.symlink_to(Path("there") / "target.json")
    files.write_json(link, {})
    assert link.is_symlink()
    assert target.read_text() == "{}\n"
    assert os.listdir(tmp_path / "there") == ["target.json"]
    assert sorted(os.listdir(tmp_path)) == ["link.json", "there"]


def test_a_link_to_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(link.read_bytes()))
    reader.start()
    files.write_bytes(link, b"x")
    reader.join(timeout=10)
    assert received == [b"x"]
    assert link.is_symlink()
    assert stat.S_ISFIFO(pipe.stat().st_mode)
