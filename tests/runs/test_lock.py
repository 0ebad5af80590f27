"""The lock of a run folder: one owner, who is named, and whose death frees it."""

import contextlib
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minilm.errors import InputError
from minilm.runs import lock
from minilm.runs.lock import run_lock
from tests.conftest import ROOT

HOLD = """
import sys, time
from pathlib import Path
from minilm.runs.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_owner_is_refused_by_name_and_changes_nothing(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        owner = (tmp_path / ".minilm.lock").read_text()
        assert json.loads(owner)["pid"] == os.getpid()
        for _ in range(2):
            with pytest.raises(InputError, match=f"process {os.getpid()} on"), run_lock(tmp_path):
                pass
        assert (tmp_path / ".minilm.lock").read_text() == owner
    assert not list(tmp_path.iterdir())
    with run_lock(tmp_path):
        pass


def test_a_killed_owner_leaves_a_file_that_the_next_one_takes_over(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=f"process {process.pid} on"), run_lock(tmp_path):
        pass
    process.kill()
    process.communicate()
    assert (tmp_path / ".minilm.lock").exists()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / ".minilm.lock").read_text())["pid"] == os.getpid()


def test_a_lock_file_that_says_nothing_is_another_process(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        (tmp_path / ".minilm.lock").write_text("")
        with pytest.raises(InputError, match="another process is training"), run_lock(tmp_path):
            pass


def test_a_file_that_was_removed_by_its_owner_meanwhile_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, attempts = lock._lock, []

    def slow(descriptor: int) -> None:
        attempts.append(descriptor)
        if len(attempts) == 1:  # between opening and locking the owner before ends
            (tmp_path / ".minilm.lock").unlink()
        take(descriptor)

    monkeypatch.setattr(lock, "_lock", slow)
    with run_lock(tmp_path):
        assert len(attempts) == 2
        with pytest.raises(InputError, match="is training in it"), run_lock(tmp_path):
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="no links without a privilege")
@pytest.mark.parametrize("exists", [True, False])
def test_a_lock_that_is_a_link_is_refused_and_its_target_stays(
    exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, run = tmp_path / "target.txt", tmp_path / "run"
    run.mkdir()
    if exists:
        target.write_text("precious")
    path = run / ".minilm.lock"
    path.symlink_to(target)
    with pytest.raises(InputError, match=r"\.minilm\.lock: not a regular file"), run_lock(run):
        pass
    # One that is put there between the look and the opening.
    monkeypatch.setattr(lock.os.path, "lexists", lambda _: False)
    with pytest.raises(InputError, match="not a regular file"), run_lock(run):
        pass
    assert path.is_symlink()
    assert target.exists() == exists
    assert not exists or target.read_text() == "precious"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_lock_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".minilm.lock")
    with pytest.raises(InputError, match="not a regular file"), run_lock(tmp_path):
        pass


def test_without_locks_in_the_file_system_it_goes_on_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(lock, "_lock", refuse)
    with run_lock(tmp_path):
        assert "start no second process in it" in caplog.text


def test_no_file_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for _ in range(3):
        with run_lock(tmp_path), contextlib.suppress(InputError), run_lock(tmp_path):
            pass
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before
