"""Atomic writes: whole or absent, modes by umask, nothing left behind."""

import errno
import json
import os
import stat
import subprocess
import sys
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


def as_stdout(code: str, stdout: Path, mode: str, folder: Path) -> str:
    """What ``stdout`` holds when a program with ``code`` was run with it as its standard output."""
    with stdout.open(mode) as stream:
        subprocess.run([sys.executable, "-c", code], cwd=folder, stdout=stream, check=True)
    return stdout.read_text()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="there is no /dev/stdout")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "link", "link-to-a-link"])
def test_a_file_behind_standard_output_keeps_what_it_has(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    (tmp_path / "link-to-a-link").symlink_to("link")
    code = (
        "from pathlib import Path; from minilm import files\n"
        f"files.write_bytes(Path({name!r}), b'report\\n'); print('after')"
    )
    out = tmp_path / "out"
    assert as_stdout(code, out, "w", tmp_path) == "report\nafter\n"
    assert as_stdout(code, out, "a", tmp_path) == "report\nafter\n" * 2
    assert (tmp_path / "link").is_symlink()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc")
def test_a_file_that_another_program_holds_open_is_not_truncated(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    with path.open("a") as stream:
        program = [sys.executable, "-c", "input()"]
        other = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=stream)
        try:
            files.write_bytes(Path(f"/proc/{other.pid}/fd/1"), b"report\n")
        finally:
            other.communicate(b"\n")
    assert path.read_text() == "before\nreport\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_failure_of_a_device_names_it() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        files.write_bytes(Path("/dev/full"), b"report")
    assert caught.value.filename == "/dev/full"


def test_a_loop_of_links_is_an_error_and_stays(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(OSError, match="symbolic link") as caught:
        files.write_bytes(loop, b"report")
    assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, str(loop))
    assert os.listdir(tmp_path) == ["loop"]
    assert loop.is_symlink()


@pytest.mark.parametrize("name", ["", "weights"])
def test_a_folder_that_cannot_be_made_is_named_as_it_was_asked_for(
    tmp_path: Path, name: str
) -> None:
    out = tmp_path / "no such folder" / "out"
    with pytest.raises(OSError) as caught, files.staged(out) as staging:  # noqa: PT011
        (staging / name).mkdir()
    assert caught.value.filename == str(out / name)
    with pytest.raises(OSError) as caught, files.staged(tmp_path / "out"):  # noqa: PT011
        (tmp_path / "no" / "other").mkdir()
    assert caught.value.filename == str(tmp_path / "no" / "other")
