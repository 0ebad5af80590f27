"""metrics.jsonl and samples.jsonl: an object a line."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from minilm import files
from minilm.errors import FormatError
from minilm.formats.checks import open_regular
from minilm.runs import files as run_files

# Bytes; metrics take some 200, a sample is as long as TrainConfig.sample_tokens allows.
LONGEST_LINE, LONGEST_SAMPLE = 10_000, 4_000_000
LARGEST_LOG = 64_000_000
MOST_POINTS = 4000  # of evaluations, and of other lines
LARGEST = sys.float_info.max


class JsonLines:
    """A log of one JSON object a line; a resumed run first drops what comes after its step."""

    def __init__(self, path: Path, lines: Iterable[dict[str, Any]]) -> None:
        files.write_bytes(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
        self._stream: IO[str] = path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Append one object and hand it to the system, so that a killed run keeps it."""
        self._stream.write(json.dumps(line, allow_nan=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def metrics_log(run_dir: Path, from_step: int, *, evaluated: bool) -> JsonLines:
    """metrics.jsonl, to go on from ``from_step``; ``evaluated``: that step's evaluation was saved too."""
    path, last = run_dir / run_files.METRICS, from_step if evaluated else from_step - 1
    return JsonLines(
        path,
        (
            line
            for line in read_metrics(path)
            if line["step"] <= (last if "val_loss" in line else from_step)
        ),
    )


def samples_log(run_dir: Path, from_step: int, *, evaluated: bool) -> JsonLines:
    """samples.jsonl, ``step`` and ``text`` a line, likewise: samples are made at evaluations."""
    path, last = run_dir / run_files.SAMPLES, from_step if evaluated else from_step - 1
    return JsonLines(path, (line for line in read_samples(path) if line["step"] <= last))


def read_samples(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a samples.jsonl with its step and text, the empty list without one.

    Raises FormatError for what is not a regular file, or is too large to be such a log.
    """
    with _open_log(path) as stream:
        parsed = [_parse(text, LONGEST_SAMPLE) for text in stream]
    return [line for line in parsed if line is not None and isinstance(line.get("text"), str)]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a metrics.jsonl, the empty list without one; a torn last line is left out.

    Raises FormatError for what is not a regular file.
    """
    if not path.exists():
        return []
    with open_regular(path) as (stream, _):
        return _numbers(stream)


def read_points(path: Path) -> list[dict[str, Any]]:
    """As `read_metrics`, for a plot: of many lines some thousands, evenly, and up to the last.

    Evaluations are few and are thinned apart from the other lines. Raises FormatError also for a file
    that is too large to be a log.
    """
    with _open_log(path) as stream:
        remaining = Counter(map(_is_evaluation, stream))
        every = {kind: -(-count // MOST_POINTS) for kind, count in remaining.items()}
        stream.seek(0)
        thinned = []
        for text in stream:
            kind = _is_evaluation(text)
            remaining[kind] -= 1
            if (
                remaining[kind] % every.get(kind, 1) == 0
            ):  # of a growing log, more than were counted
                thinned.append(text)
        return _numbers(thinned)


def _is_evaluation(text: bytes) -> bool:
    return b"val_loss" in text


@contextlib.contextmanager
def _open_log(path: Path) -> Iterator[IO[bytes]]:
    """A log that is not too large to be one; an empty stream where there is none."""
    if not path.exists():
        yield io.BytesIO()
        return
    with open_regular(path) as (stream, size):
        if size > LARGEST_LOG:
            raise FormatError(path, f"{size:,} bytes", f"at most {LARGEST_LOG:,}")
        yield stream


def _numbers(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    parsed = (_parse(text) for text in lines)
    return [line for line in parsed if line is not None and all(map(_is_finite, line.values()))]


def _parse(text: bytes, longest: int = LONGEST_LINE) -> dict[str, Any] | None:
    """The object of one line; None where it is not one of a step."""
    try:
        line = json.loads(text) if len(text) <= longest else None
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and type(line.get("step")) is int else None


def _is_finite(value: object) -> bool:
    """Whether it is a number that a float can hold, neither infinite nor NaN."""
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST  # type: ignore[operator]
