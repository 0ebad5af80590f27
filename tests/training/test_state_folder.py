"""A state that several processes wrote, read by one: the same run goes on, and what is damaged is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from minilm.errors import FormatError
from minilm.runs.base_run import weights_sha256
from minilm.runs.new_folder import check_free, remove_beginning, remove_temporary_files
from minilm.training.resume_state import (
    Progress,
    read_state,
    remove_older,
    state_fields,
    state_files,
    write_folders_as_files,
)
from minilm.training.state_folder import write_record
from minilm.training.train import resume
from tests.parallel.part_files import write_in_rows

SETTINGS = {"source": "x", "cleaning": [], "sha256": "0", "train": {}}
TENSORS = {"a": torch.arange(6.0).reshape(3, 2), "rng.cpu": torch.get_rng_state()}


def write_folder(
    run: Path, progress: Progress, settings: dict, tensors: dict, save: str = "0123abcd"
) -> Path:
    """A state's folder, as two processes leave it."""
    folder = run / "resume" / f"step-{progress.step:09d}" / save
    folder.mkdir(parents=True)
    write_in_rows(folder, tensors)
    digests = {path.name: weights_sha256(path) for path in folder.iterdir()}
    return write_record(folder, digests, state_fields(progress, settings))


@pytest.fixture(scope="module")
def in_parts(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run, its newest state as two processes would have written it; tests must not change it."""
    run = tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(tiny_run, run)
    saved = read_state(run)
    tensors = {name: tensor.clone() for name, tensor in saved.tensors.items()}
    saved.path.unlink()
    write_folder(run, saved.progress, saved.settings, tensors)
    return run


def test_it_resumes_as_the_file_of_one_process_does(
    tiny_run: Path, in_parts: Path, tmp_path: Path, cache: Path
) -> None:
    runs = [shutil.copytree(each, tmp_path / each.name) for each in (tiny_run, in_parts)]
    for run in runs:
        resume(run, settings={"max_steps": 15}, cache=cache)
        assert not (run / "resume" / "step-000000012").exists(), "its files replace the folder"
    names = [sorted(str(p.relative_to(run)) for p in run.rglob("*")) for run in runs]
    assert names[0] == names[1]
    weights = [(run / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]
    one, other = (read_state(run).tensors for run in runs)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_at_the_end_of_a_run_it_becomes_the_file_of_one_process(
    tiny_run: Path, in_parts: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(in_parts, tmp_path / "run")
    write_folders_as_files(run)
    assert [p.name for p in state_files(run)] == [p.name for p in state_files(tiny_run)]
    assert state_files(run)[0].read_bytes() == state_files(tiny_run)[0].read_bytes()


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def rewrite(path: Path, change: Callable[[dict], object]) -> None:
    """Change a record and its own hash with it, as somebody who means harm can."""
    from minilm.training import state_folder

    record = json.loads(path.read_text())
    change(record["state"])
    record["sha256"] = state_folder._digest(record["state"])
    path.write_text(json.dumps(record))


SHARD = "0123abcd/shard-00002-model-00001-of-00001.safetensors"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of a tensor": (lambda s: flip(s / SHARD, -1), "not the bytes that were written"),
    "a byte of a header": (lambda s: flip(s / SHARD, 9), "not the bytes that were written"),
    "a digit of the record": (
        lambda s: (s / "state.json").write_text(
            (s / "state.json").read_text().replace('"tokens": 9', '"tokens": 8')
        ),
        "not what was written",
    ),
    "no JSON": (lambda s: (s / "state.json").write_text("{"), "not JSON"),
    "a file is missing": (lambda s: (s / SHARD).unlink(), "is missing"),
    "a file too many": (lambda s: (s / "0123abcd" / "x.safetensors").touch(), "beside its files"),
    "another folder": (
        lambda s: rewrite(s / "state.json", lambda state: state.update(folder="../../..")),
        "no folder of files",
    ),
    "no files": (
        lambda s: rewrite(s / "state.json", lambda state: state.update(files=3)),
        "no files",
    ),
    "another step": (
        lambda s: rewrite(s / "state.json", lambda state: state["progress"].update(step=7)),
        "a state of step 7",
    ),
    "no progress": (
        lambda s: rewrite(s / "state.json", lambda state: state.pop("progress")),
        "no progress",
    ),
    "a link": (lambda s: ((s / SHARD).unlink(), (s / SHARD).symlink_to("/dev/zero")), "written"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_one_is_refused_in_one_line_and_the_one_before_is_taken(
    tmp_path: Path, name: str
) -> None:
    damage, message = DAMAGE[name]
    state = write_folder(tmp_path, Progress(step=6, tokens=9), SETTINGS, TENSORS)
    assert torch.equal(read_state(tmp_path).tensors["a"], TENSORS["a"])
    damage(state)
    with pytest.raises(FormatError, match=message) as raised:
        read_state(tmp_path)
    assert "\n" not in str(raised.value)
    write_folder(tmp_path, Progress(step=5), SETTINGS, TENSORS)
    saved = read_state(tmp_path)
    assert (saved.progress.step, saved.damaged) == (5, (state,))


def test_tensors_of_another_model_are_refused_before_any_is_read(
    in_parts: Path, tmp_path: Path, cache: Path
) -> None:
    run = shutil.copytree(in_parts, tmp_path / "run")
    saved = read_state(run)
    tensors = {name: tensor.clone() for name, tensor in saved.tensors.items()}
    shutil.rmtree(saved.path)
    tensors["model.final_norm.weight"] = torch.zeros(17)
    write_folder(run, saved.progress, saved.settings, tensors)
    with pytest.raises(FormatError, match=r"model.final_norm.weight \('float32', 17\), expected"):
        resume(run, settings={"max_steps": 13}, cache=cache)
    shutil.rmtree(saved.path)
    tensors["model.final_norm.weight"] = torch.zeros(16)
    write_folder(run, saved.progress, saved.settings, tensors | {"model.extra": torch.zeros(2)})
    with pytest.raises(FormatError, match=r"model.extra .* expected no such tensor"):
        resume(run, settings={"max_steps": 13}, cache=cache)


def test_what_a_killed_save_left_is_passed_over_and_removed(tmp_path: Path) -> None:
    state = write_folder(tmp_path, Progress(step=5), SETTINGS, TENSORS)
    unfinished = tmp_path / "resume" / "step-000000006" / "89abcdef"  # no record yet
    second = state / "00000000"  # of the same step again
    for folder in (unfinished, second):
        folder.mkdir(parents=True)
        write_in_rows(folder, TENSORS)
    (unfinished / ".shard-00002-model-00001-of-00001.safetensors.0123abcd.tmp").touch()
    temporary = state / ".state.json.0123abcd.tmp"
    temporary.touch()
    assert read_state(tmp_path).progress.step == 5
    (state / "notes.txt").touch()  # nobody's but the user's
    remove_temporary_files(tmp_path)
    assert not unfinished.parent.exists()
    assert {path.name for path in state.iterdir()} == {"state.json", "0123abcd", "notes.txt"}
    assert torch.equal(read_state(tmp_path).tensors["a"], TENSORS["a"])


def test_a_second_save_of_a_step_replaces_the_first(tmp_path: Path) -> None:
    write_folder(tmp_path, Progress(step=5), SETTINGS, TENSORS)
    state = write_folder(
        tmp_path, Progress(step=5, tokens=7), SETTINGS, {"a": torch.ones(2)}, "f" * 8
    )
    saved = read_state(tmp_path)
    assert (saved.progress.tokens, set(saved.tensors)) == (7, {"a"})
    assert {path.name for path in state.iterdir()} == {"state.json", "f" * 8}


def test_the_newest_are_kept_be_they_files_or_folders(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write_folder(tmp_path, Progress(step=step), SETTINGS, TENSORS)
        if step in (1, 3):
            write_folders_as_files(tmp_path)
    newest = tmp_path / "resume" / "step-000000004"
    (newest.parent / "step-000000004.safetensors").touch()  # the same step, written before
    remove_older(tmp_path, newest, keep=3)
    assert [path.name for path in state_files(tmp_path)] == [
        "step-000000004",
        "step-000000003.safetensors",
        "step-000000002.safetensors",
    ]


def test_a_run_that_did_not_begin_leaves_a_free_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    state = write_folder(run, Progress(), SETTINGS, TENSORS)
    (run / ".minilm.lock").touch()
    check_free(run)
    (state / "mine.txt").touch()
    with pytest.raises(ValueError, match="something is there"):
        check_free(run)
    (state / "mine.txt").unlink()
    remove_beginning(run)
    assert [path.name for path in run.iterdir()] == [".minilm.lock"]


def test_the_fields_are_those_of_a_file(in_parts: Path) -> None:
    record = json.loads((state_files(in_parts)[0] / "state.json").read_text())
    saved = read_state(in_parts)
    assert record["state"]["progress"] == asdict(saved.progress)
    assert record["state"]["settings"] == saved.settings
