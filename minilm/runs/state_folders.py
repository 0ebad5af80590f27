"""Training states that several processes write: the folders resume/step-N.

    resume/step-000000100/state.json      how far the run is, and the SHA-256 of every file of the next line
    resume/step-000000100/1a2b3c4d/...    the files of one save

state.json is written last and replaced atomically, and names the folder of its files: whatever is beside that
is of a save that did not end, or of the one before.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from minilm import files
from minilm.errors import FormatError
from minilm.formats.json_file import read_object
from minilm.runs import files as run_files

RECORD = "state.json"

_SAVE = re.compile(r"[0-9a-f]{8}", re.ASCII)
_FILE = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors", re.ASCII)


def files_folder(state: Path, name: object) -> Path:
    """The folder of one save. Raises FormatError for what is no name of one."""
    if not isinstance(name, str) or not _SAVE.fullmatch(name):
        raise FormatError(state / RECORD, "no folder of files", "eight digits, as 1a2b3c4d")
    return state / name


def is_state_folder(path: Path) -> bool:
    """Whether it is one with a record; without that it is of a save that did not end."""
    return is_named_as_state_folder(path) and (path / RECORD).is_file()


def is_named_as_state_folder(path: Path) -> bool:
    """Whether its name is that of one, and it is a folder itself and no link to one."""
    named = not path.suffix and run_files.step_of_state(path.name) is not None
    return named and path.is_dir() and not path.is_symlink()


def remove_state(path: Path) -> None:
    """Remove a state, be it a file or a folder: its record first, so that no part of it is taken for one."""
    if is_named_as_state_folder(path):
        (path / RECORD).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_unfinished(resume: Path) -> None:
    """Remove what saves left that did not end, of every state folder in ``resume``."""
    for state in list(resume.iterdir()):
        if is_named_as_state_folder(state):
            for path in list(_beside_record(state)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            with contextlib.suppress(OSError):
                state.rmdir()  # where there is nothing else


def _beside_record(state: Path) -> Iterator[Path]:
    """What is in a state's folder that its record does not name, if a save wrote it."""
    try:
        current = read_object(state / RECORD).get("state", {})
        kept = current.get("folder") if isinstance(current, dict) else None
    except FileNotFoundError:
        kept = None
    except (FormatError, OSError):
        return  # damaged: it is set aside as it is
    for path in state.iterdir():
        if path.name != kept and is_of_save(path):
            yield path


def is_of_save(path: Path) -> bool:
    """Whether ``path``, in a state's folder, is what a save leaves there, beside its record."""
    if path.is_symlink():
        return False
    if path.is_dir():
        return bool(_SAVE.fullmatch(path.name)) and all(map(_is_of_tensors, path.iterdir()))
    return files.target_of_temporary(path.name) == RECORD


def _is_of_tensors(path: Path) -> bool:
    """Whether it is a file of tensors, or what was being written to one when its process was killed."""
    name = files.target_of_temporary(path.name) or path.name
    return bool(_FILE.fullmatch(name)) and path.is_file()
