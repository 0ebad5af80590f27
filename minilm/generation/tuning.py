"""Choices that are measured, since what is faster differs between processors, and remembered.

They are kept in tuning.json in the cache of minilm, by processor, torch and number of threads, so that the
same command computes in the same way each time. Without that file they are measured again, and what is
about equally fast may be chosen otherwise. Of several processes that measure at once the first one's answer
stays, unless two write in the same instant: there is no lock.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from minilm import files
from minilm.costs.hardware import processor
from minilm.data.cache import TUNING, default_cache
from minilm.errors import InputError
from minilm.formats.json_file import read_object

ROUNDS = 7
# An alternative replaces what torch does by itself only where it is clearly faster, by the shortest time and
# in most rounds: what else the machine does must not decide.
CLEARLY = 0.85

logger = logging.getLogger(__name__)


def choose(
    question: str,
    alternatives: Sequence[tuple[str, Callable[[], object]]],
    before: Callable[[], object] = lambda: None,
) -> str:
    """The name of the fastest alternative: as remembered for ``question``, else as measured now.

    The first one is taken where no other is clearly faster. ``before`` is called before each, and not timed.
    """
    path = _path()
    machine = f"{processor()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    names = [name for name, _ in alternatives]
    known = _answers(_read(path), machine).get(question)
    if known in names:
        return str(known)
    name = fastest(alternatives, before)
    remembered = _read(path)  # again: another process may have written meanwhile
    answers = _answers(remembered, machine)
    if answers.get(question) in names:
        return str(answers[question])
    if path is not None:
        text = json.dumps(
            {**remembered, machine: {**answers, question: name}}, indent=1, sort_keys=True
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_bytes(path, text.encode())
        except OSError as error:
            _note_unwritten(f"{path}: {error.strerror}")
    return name


@functools.cache  # once in a process
def _note_unwritten(reason: str) -> None:
    logger.warning(f"note: what is fastest here is measured anew each time: {reason}")


def fastest(
    alternatives: Sequence[tuple[str, Callable[[], object]]],
    before: Callable[[], object] = lambda: None,
) -> str:
    """By some rounds of each alternative in turn: what disturbs one disturbs all."""
    seconds: list[list[float]] = [[] for _ in alternatives]
    for _ in range(ROUNDS):
        for times, (_, run) in zip(seconds, alternatives, strict=True):
            before()
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
    best = 0
    for number, times in enumerate(seconds):  # of two that are about as fast it is the earlier one
        if _is_clearly_faster(times, seconds[best]):
            best = number
    return alternatives[best][0]


def _is_clearly_faster(times: list[float], others: list[float]) -> bool:
    pairs = zip((min(times), *times), (min(others), *others), strict=True)
    shortest, *of_rounds = (time < CLEARLY * other for time, other in pairs)
    return shortest and 2 * sum(of_rounds) > ROUNDS


def _answers(remembered: Mapping[str, object], machine: str) -> dict[str, object]:
    answers = remembered.get(machine)
    return answers if isinstance(answers, dict) else {}


def _path() -> Path | None:
    try:
        return default_cache() / TUNING
    except InputError:  # no home directory
        return None


def _read(path: Path | None) -> dict[str, object]:
    try:
        return read_object(path) if path is not None and path.is_file() else {}
    except (InputError, OSError):
        return {}
