"""metrics.jsonl: one JSON object a logged step, and the clock that its seconds are read from."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from minilm import files
from minilm.errors import FormatError
from minilm.formats.checks import open_regular

LONGEST_LINE = 10_000  # bytes; what is logged takes some 200
LARGEST_LOG = 64_000_000
MOST_POINTS = 4000  # of evaluations, and of other lines
LARGEST = sys.float_info.max


def seconds_since_process_start() -> float:
    """Wall time since this process started; on systems without /proc, since the first call."""
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # proc(5), field 22: ticks after boot
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, ValueError, IndexError):
        return time.perf_counter() - _FIRST_SEEN


_FIRST_SEEN = time.perf_counter()


class MetricsLog:
    """Appends lines; a resumed run first drops those after the step it goes on from."""

    def __init__(self, path: Path, from_step: int) -> None:
        kept = [line for line in read_metrics(path) if line["step"] <= from_step]
        files.write_bytes(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._stream: IO[str] = path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Append one object and hand it to the system, so that a killed run keeps it."""
        self._stream.write(json.dumps(line, allow_nan=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a metrics.jsonl, the empty list without one; a torn last line is left out.

    Raises FormatError for what is not a regular file.
    """
    if not path.exists():
        return []
    with open_regular(path) as (stream, _):
        return _parsed(stream)


def read_points(path: Path) -> list[dict[str, Any]]:
    """As `read_metrics`, for a plot: of many lines some thousands, evenly, and up to the last.

    Evaluations are few and are thinned apart from the other lines. Raises FormatError also for a file
    that is too large to be a log.
    """
    if not path.exists():
        return []
    with open_regular(path) as (stream, size):
        if size > LARGEST_LOG:
            raise FormatError(path, f"{size:,} bytes", f"at most {LARGEST_LOG:,}")
        left = Counter(map(_is_evaluation, stream))
        every = {kind: -(-count // MOST_POINTS) for kind, count in left.items()}
        stream.seek(0)
        kept = []
        for text in stream:
            kind = _is_evaluation(text)
            left[kind] -= 1
            if left[kind] % every.get(kind, 1) == 0:  # of a growing log, more than were counted
                kept.append(text)
        return _parsed(kept)


def _is_evaluation(text: bytes) -> bool:
    return b"val_loss" in text


def _parsed(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    return [line for text in lines if (line := _parse(text)) is not None]


def _parse(text: bytes) -> dict[str, Any] | None:
    """The object of one line; None where it is not one of a step and numbers."""
    try:
        line = json.loads(text) if len(text) <= LONGEST_LINE else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int:
        return None
    return line if all(map(_is_finite, line.values())) else None


def _is_finite(value: object) -> bool:
    """Whether it is a number that a float can hold, neither infinite nor NaN."""
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST  # type: ignore[operator]
