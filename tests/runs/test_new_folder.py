"""Folders for new runs: which are free, what a killed start leaves, and what is never removed."""

import os
from pathlib import Path

import pytest

from minilm.errors import InputError
from minilm.runs.new_folder import (
    check_free,
    default_run_dir,
    new_run_folder,
    remove_beginning,
    remove_temporary_files,
)


def test_a_run_is_named_after_its_preset_or_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "base")
    assert default_run_dir("nano", None, "t") == Path("checkpoints/nano-t")
    for init_from in (".", Path("."), "deep/..", "../base/", tmp_path / "base"):
        assert default_run_dir("nano", init_from, "t") == Path("checkpoints/base-t")


def test_folders_as_containers_have_them_are_free(tmp_path: Path) -> None:
    mount, link, volume = tmp_path / "mount", tmp_path / "link", tmp_path / "volume"
    mount.mkdir()
    link.symlink_to(mount)
    (volume / "lost+found").mkdir(parents=True)
    for folder in (mount, link, volume, tmp_path / "not" / "made"):
        before = sorted(tmp_path.rglob("*"))
        inode = folder.stat().st_ino if folder.exists() else None
        check_free(folder)
        with new_run_folder(folder):
            (folder / "config.json").write_text("{}")
            assert inode in (None, folder.stat().st_ino)  # a mount point cannot be renamed over
        (folder / "config.json").unlink()
        if inode is not None:
            assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_empty_folder_under_one_that_cannot_be_written_is_free(tmp_path: Path) -> None:
    (tmp_path / "above" / "run").mkdir(parents=True)
    (tmp_path / "above").chmod(0o555)
    try:
        check_free(tmp_path / "above" / "run")
        with pytest.raises(InputError, match="cannot be written in"):
            check_free(tmp_path / "above" / "other")
    finally:
        (tmp_path / "above").chmod(0o755)


def test_whether_the_folder_or_the_one_above_must_be_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) == tmp_path / "run")
    check_free(tmp_path / "run")
    with pytest.raises(InputError, match="cannot be written in"):
        check_free(tmp_path / "other")


def test_a_start_that_was_killed_is_no_obstacle_and_other_files_are(tmp_path: Path) -> None:
    left = [".minilm.lock", "tokenizer.json", "model.safetensors", ".config.json.0123abcd.tmp"]
    left += ["resume/step-000000000.safetensors", "resume/.step-000000000.safetensors.0123abcd.tmp"]
    (tmp_path / "resume").mkdir()
    for name in left:
        (tmp_path / name).write_text("x")
    check_free(tmp_path)
    for name in ("notes.txt", "config.json", "resume/step-000000001.safetensors"):
        (tmp_path / name).write_text("x")
        with pytest.raises(InputError, match="there already"):
            check_free(tmp_path)
        (tmp_path / name).unlink()
    for name in (".minilm.lock", "model.safetensors", "resume/step-000000000.safetensors"):
        path = tmp_path / name
        path.rename(tmp_path.parent / "target")
        path.symlink_to(tmp_path.parent / "target")
        with pytest.raises(InputError, match="something is there already"):
            check_free(tmp_path)
        path.unlink()
        path.write_text("x")
    check_free(tmp_path)
    (tmp_path / ".minilm.lock").unlink()  # then the files are somebody else's
    with pytest.raises(InputError, match="something is there already"):
        check_free(tmp_path)


def test_a_state_that_another_process_wrote_late_is_no_obstacle(tmp_path: Path) -> None:
    """The first of several processes has tidied up meanwhile, its lock last."""
    state = tmp_path / "resume" / "step-000000000"
    state.mkdir(parents=True)
    check_free(tmp_path)
    (tmp_path / "resume" / "step-000000010").mkdir()
    with pytest.raises(InputError, match="something is there already"):
        check_free(tmp_path)


def test_a_folder_that_was_taken_meanwhile_is_refused_under_the_lock(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="a run is there already"), new_run_folder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_only_what_a_run_can_have_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "resume").mkdir()
    own = [".model.safetensors.0123abcd.tmp", "resume/.step-000000012.safetensors.0123abcd.tmp"]
    others = [".x.tmp", ".notes.0123abcd.tmp", ".model.safetensors.tmp", "deep/.config.json.tmp"]
    (tmp_path / "deep").mkdir()
    for name in (*own, *others, "deep/.config.json.0123abcd.tmp"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".summary.json.0123abcd.tmp").mkdir()
    (tmp_path / ".report.html.0123abcd.tmp").symlink_to("nowhere")
    remove_temporary_files(tmp_path)
    remaining = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert remaining == {
        *(*others, "deep", "resume", "deep/.config.json.0123abcd.tmp"),
        *(".summary.json.0123abcd.tmp", ".report.html.0123abcd.tmp"),
    }


def test_a_beginning_is_removed_and_what_lies_beside_it_stays(tmp_path: Path) -> None:
    (tmp_path / "resume").mkdir()
    for name in ("config.json", "tokenizer.json", "resume/step-000000000.safetensors"):
        (tmp_path / name).write_text("x")
    (tmp_path / "mine.txt").write_text("x")
    remove_beginning(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_file_system_without_new_folders_is_met_first() -> None:
    assert os.geteuid() or os.access("/proc", os.W_OK), "what it says of itself"
    with pytest.raises(InputError, match="/proc cannot be written in"):
        check_free(Path("/proc/minilm/run"))


def test_what_is_tried_leaves_nothing(tmp_path: Path) -> None:
    check_free(tmp_path / "not" / "made")
    assert list(tmp_path.iterdir()) == []
