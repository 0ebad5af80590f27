"""Choices that are measured, since what is faster differs between processors, and remembered.

They are kept in tuning.json in the cache of minilm, by processor, torch and number of threads, so that the
same command computes in the same way each time. Without that file they are measured again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from minilm import files
from minilm.costs.hardware import processor
from minilm.data.cache import default_cache
from minilm.errors import InputError
from minilm.formats.json_file import read_object

FILE = "tuning.json"
ROUNDS = 5
# An alternative replaces what torch does by itself only where it is clearly faster.
CLEARLY = 0.9


def choose(
    question: str,
    alternatives: Sequence[tuple[str, Callable[[], object]]],
    before: Callable[[], object] = lambda: None,
) -> str:
    """The name of the fastest alternative: as remembered for ``question``, else as measured now.

    The first one is taken where no other is clearly faster. ``before`` is called before each, and not timed.
    """
    path = _path()
    remembered = _read(path)
    machine = f"{processor()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    names = [name for name, _ in alternatives]
    answers = remembered.get(machine)
    answers = answers if isinstance(answers, dict) else {}
    if answers.get(question) in names:
        return str(answers[question])
    name = fastest(alternatives, before)
    if path is not None:
        answers = {**answers, question: name}
        text = json.dumps({**remembered, machine: answers}, indent=1, sort_keys=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_bytes(path, text.encode())
        except OSError:
            pass  # it is measured again the next time
    return name


def fastest(
    alternatives: Sequence[tuple[str, Callable[[], object]]],
    before: Callable[[], object] = lambda: None,
) -> str:
    """By the shortest of some rounds, each alternative in turn: what disturbs one disturbs all."""
    shortest = [float("inf")] * len(alternatives)
    for _ in range(ROUNDS):
        for number, (_, run) in enumerate(alternatives):
            before()
            begin = time.perf_counter()
            run()
            shortest[number] = min(shortest[number], time.perf_counter() - begin)
    best = min(range(len(alternatives)), key=lambda number: shortest[number])
    return alternatives[best if shortest[best] < CLEARLY * shortest[0] else 0][0]


def _path() -> Path | None:
    try:
        return default_cache() / FILE
    except InputError:  # no home directory
        return None


def _read(path: Path | None) -> dict[str, object]:
    try:
        return read_object(path) if path is not None and path.is_file() else {}
    except (InputError, OSError):
        return {}
