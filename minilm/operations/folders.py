"""The folder of a transformed model: a run that was not trained here, with what was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minilm import files
from minilm.errors import InputError
from minilm.runs import files as run_files


def check_new(out: Path) -> None:
    """Raises InputError unless a folder can be made at ``out``, before anything is computed."""
    if out.exists():
        raise InputError(out, "something that exists", "a new path", "remove it or choose another")
    if not out.absolute().parent.is_dir():
        raise InputError(out.parent, "no such folder", "one that the new path is in")


def write_summary(folder: Path, source: Path, fields: Mapping[str, Any]) -> None:
    """summary.json: ``fields``, and which text ``source`` has: the next tool finds its split there."""
    of_source = run_files.last_summary(source)
    data = {"data": of_source["data"]} if "data" in of_source else {}
    files.write_json(folder / run_files.SUMMARY, data | dict(fields))
