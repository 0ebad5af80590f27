"""A folder for a new run: which one, whether it is free, and what is removed of a run that did not begin.

A run is written in place, config.json last: a folder without it holds no run. Only files that this run
can have written are ever removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from minilm import files
from minilm.errors import InputError
from minilm.runs import files as run_files
from minilm.runs import state_folders
from minilm.runs.lock import run_lock

# Written before config.json; a state of a later step is that of a run that was trained.
_FIRST_STATES = (run_files.state_name(0), run_files.state_folder_name(0))
_BEFORE_CONFIG = (run_files.TOKENIZER, *run_files.COMPANIONS, run_files.WEIGHTS)
# Folders that are written before it, and what is in them.
_FOLDERS = {
    run_files.ADAPTER: (run_files.ADAPTER_CONFIG, run_files.ADAPTER_WEIGHTS),
    run_files.BASE: (*_BEFORE_CONFIG, run_files.CONFIG),
}
_LOGS = (run_files.METRICS, run_files.SAMPLES, run_files.PARAMETERS)
# In the root of a file system of its own, as a container's volume is.
_OF_THE_FILE_SYSTEM = {"lost+found"}


def default_run_dir(preset: str, init_from: str | Path | None, corpus: str) -> Path:
    """Where a run of a text goes: named after its preset, or after the folder that it starts from."""
    model = preset if init_from is None else os.path.basename(os.path.abspath(init_from))
    return Path(f"checkpoints/{model}-{corpus}")


def check_free(folder: Path) -> None:
    """Raises InputError unless a new run can be written to ``folder``: an empty one, or one to be made."""
    if (folder / run_files.CONFIG).exists():
        raise InputError(
            folder,
            "a run is there already",
            "a folder without one",
            "resume it (--resume, minilm.resume), or choose another --run-dir",
        )
    if os.path.lexists(folder):
        if not folder.is_dir() or _foreign_names(folder):
            raise InputError(folder, "something is there already", "an empty folder or none")
        above = folder
    else:
        above = next(path for path in folder.absolute().parents if os.path.lexists(path))
    can_write = os.access(above, os.W_OK)
    if not can_write or (above != folder and not _can_make_folder(above)):
        raise InputError(folder, f"{above} cannot be written in", "a folder that can be made")


def _can_make_folder(parent: Path) -> bool:
    """Tried by making one: a file system such as /proc says that it is writable."""
    probe = parent / files.temporary_name("new")
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def new_run_folder(folder: Path) -> Iterator[None]:
    """Make the folder and hold its lock within the block.

    A folder that was made here and is empty afterwards is removed again.
    """
    existed = folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(folder, f"{error.strerror}", "a folder that can be made") from None
    try:
        with run_lock(folder):
            check_free(folder)  # another process may have been faster
            remove_temporary_files(folder)
            yield
    finally:
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()


def remove_beginning(folder: Path) -> None:
    """Remove what a run has written that did not make its first step."""
    for name in (run_files.CONFIG, *_BEFORE_CONFIG, *_LOGS):
        (folder / name).unlink(missing_ok=True)
    for name in _FIRST_STATES:
        state_folders.remove_state(folder / run_files.RESUME / name)
    for parent, names in _FOLDERS.items():
        for name in names:
            (folder / parent / name).unlink(missing_ok=True)
    for path in (folder / run_files.TENSORBOARD).glob("events.out.tfevents.*"):
        path.unlink()
    shutil.rmtree(
        folder / run_files.WANDB, ignore_errors=True
    )  # the folder was free: it is this run's
    remove_temporary_files(folder)
    for name in (run_files.RESUME, run_files.TENSORBOARD, *_FOLDERS):
        with contextlib.suppress(OSError):
            (folder / name).rmdir()


def remove_temporary_files(folder: Path) -> None:
    """Remove what a killed process was writing to a run folder."""
    for parent in (folder, *(folder / name for name in (run_files.RESUME, *_FOLDERS))):
        if parent.is_dir():
            for path in parent.iterdir():
                if _is_temporary(path) and path.is_file() and not path.is_symlink():
                    path.unlink()
    if (folder / run_files.RESUME).is_dir():
        state_folders.remove_unfinished(folder / run_files.RESUME)


def _is_temporary(path: Path) -> bool:
    name = files.target_of_temporary(path.name)
    return name is not None and run_files.is_name_in_run(name)


def _foreign_names(folder: Path) -> bool:
    """Whether a folder holds anything but what a killed process leaves of a run that did not begin.

    Without its lock that is a state before the first step: another process has tidied up, which did not wait.
    """
    paths = [path for path in folder.iterdir() if path.name not in _OF_THE_FILE_SYSTEM]
    resume = folder / run_files.RESUME
    if resume.is_dir():
        paths += resume.iterdir()
        state = resume / run_files.state_folder_name(0)
        if state_folders.is_named_as_state_folder(state):
            paths += [
                path
                for path in state.iterdir()
                if path.name != state_folders.RECORD and not state_folders.is_of_save(path)
            ]
    allowed = {run_files.RESUME, *_FIRST_STATES}
    if (folder / run_files.LOCK).is_file():
        allowed |= {*_BEFORE_CONFIG, run_files.LOCK, *_FOLDERS}
    for parent, names in _FOLDERS.items():
        if (folder / parent).is_dir():
            paths += [path for path in (folder / parent).iterdir() if path.name not in names]
    return any(  # no run leaves a link, and writing would follow it
        path.is_symlink() or (path.name not in allowed and not _is_temporary(path))
        for path in paths
    )
