"""The training state of processes that share their tensors: resume/step-N, to which each writes its parts.

What is where: runs/state_folders.py. The record, state.json, has ``state``: progress, settings, the folder of
the tensors' files and the SHA-256 of each; and ``sha256``, of that.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from torch import Tensor

from minilm import files
from minilm.errors import FormatError
from minilm.formats.json_file import read_object
from minilm.parallel.process_group import world
from minilm.parallel.sharded import is_shared
from minilm.parallel.tensor_parts import PartedTensors, read_parts
from minilm.runs import files as run_files
from minilm.runs.base_run import weights_sha256
from minilm.runs.state_folders import RECORD, files_folder, remove_unfinished


class StateFolders:
    """Writes the folders of a run's states. Every process calls each method together with the others."""

    def __init__(self) -> None:
        from minilm.parallel.sharded_save import ShardedSave  # a second of importing

        self._save = ShardedSave()

    def begin(
        self, run_dir: Path, step: int, tensors: Mapping[str, Tensor]
    ) -> tuple[Path, Future[Any]]:
        """Copy the tensors, and begin to write them to the folder that is returned."""
        (number,) = world().maximum(secrets.randbits(32) if world().is_main else 0)
        state = run_dir / run_files.RESUME / run_files.state_folder_name(step)
        folder = files_folder(state, f"{number:08x}")
        # What is not shared is equal in all processes, but for a generator that drew for a sample.
        own = {
            name: tensor
            for name, tensor in tensors.items()
            if world().is_main or is_shared(tensor) or not name.startswith("rng.")
        }
        return folder, self._save.begin(folder, own)

    def finish(self, begun: Future[Any], folder: Path) -> dict[str, str]:
        """Wait until all processes have written; the SHA-256 of every file, by its name."""
        from minilm.parallel.sharded_save import finish

        return finish(begun, folder)


def write_record(folder: Path, digests: Mapping[str, str], fields: Mapping[str, Any]) -> Path:
    """Make the files in ``folder`` the state that it is of, which is returned; others of it are removed."""
    for path in (folder, folder.parent, folder.parent.parent):
        files.sync_directory(path)
    state = {**fields, "folder": folder.name, "files": dict(sorted(digests.items()))}
    files.write_json(folder.parent / RECORD, {"state": state, "sha256": _digest(state)})
    remove_unfinished(folder.parent.parent)
    return folder.parent


def read_folder(path: Path, *, compared: bool = True) -> tuple[dict[str, Any], PartedTensors]:
    """What a state's record says, and its tensors. Raises FormatError unless all is as it was written.

    ``compared``: each process compares the bytes of some of the files; all call this together.
    """
    record = read_object(path / RECORD)
    state = record.get("state")
    if not isinstance(state, dict) or record.get("sha256") != _digest(state):
        raise FormatError(path / RECORD, "not what was written", "that of its SHA-256")
    folder, digests = files_folder(path, state.get("folder")), state.get("files")
    if not isinstance(digests, dict):
        raise FormatError(path / RECORD, "no files", "the SHA-256 of each")
    names = {each.name for each in folder.glob("*")}
    if names != digests.keys():
        name = min(names ^ digests.keys())
        got = f"{name} {'beside its files' if name in names else 'is missing'}"
        raise FormatError(folder, got, f"the {len(digests)} files of {RECORD}")
    if compared:
        own = sorted(names)[world().rank :: world().size]
        (damaged,) = world().maximum(any(_differs(folder / name, digests[name]) for name in own))
        if damaged:
            raise FormatError(folder, "not the bytes that were written", "those of its SHA-256")
    return state, read_parts(folder)


def _differs(path: Path, digest: object) -> bool:
    try:
        return weights_sha256(path) != digest
    except (FormatError, OSError):
        return True


def _digest(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
