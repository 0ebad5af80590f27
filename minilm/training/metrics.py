"""metrics.jsonl: one JSON object a logged step, and the clock that its seconds are read from."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import IO, Any

from minilm import files


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
    """Every whole line of a metrics.jsonl, the empty list without one; a torn last line is left out."""
    lines: list[dict[str, Any]] = []
    if not path.exists():
        return lines
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and type(value.get("step")) is int and _are_numbers(value):
            lines.append(value)
    return lines


def _are_numbers(line: dict[str, Any]) -> bool:
    return all(type(value) in (int, float) for value in line.values())
