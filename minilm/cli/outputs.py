"""Files that a command is told to write: none may replace what it reads, another output, or a model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from minilm import files
from minilm.errors import InputError
from minilm.runs.files import is_model_file


def check_outputs(outputs: Mapping[str, str | None], inputs: Iterable[str]) -> None:
    """Raise InputError where an output would replace another one, an input, or any file of a model.

    ``outputs`` by their options without dashes: the path, - for standard output, None where not given.
    """
    on_stdout = [name for name, value in outputs.items() if value == "-"]
    if len(on_stdout) > 1:
        got = f"- for {' and '.join(f'--{name}' for name in on_stdout)}"
        raise InputError("standard output", got, "one of them, and a file for each other")
    paths = [os.path.realpath(name) for name in inputs if os.path.exists(name)]
    for option, name in outputs.items():
        if name in (None, "-") or not files.is_replaceable(Path(name)):
            continue
        path = os.path.realpath(name)
        if path in paths:
            text = f"{name}, which is a target or another output"
            raise InputError(f"--{option}", text, "a file of its own")
        if os.path.exists(path) and is_model_file(Path(path)):
            text = f"{name}, which is a file of a model or a run"
            raise InputError(f"--{option}", text, "a file of its own")
        paths.append(path)
