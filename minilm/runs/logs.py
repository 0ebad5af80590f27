"""metrics.jsonl, samples.jsonl and parameters.jsonl: an object a line."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from minilm import files
from minilm.formats.checks import open_regular
from minilm.runs import files as run_files

# Bytes; metrics take some 200, a sample is as long as TrainConfig.sample_tokens allows.
LONGEST_LINE, LONGEST_SAMPLE_LINE = 10_000, 4_000_000
LONGEST_PARAMETERS_LINE = 4_000_000  # a thousand layers take a tenth of it
HISTOGRAM_BINS = 128  # of a component in parameters.jsonl
MOST_POINTS = 4000  # of evaluations, and of other lines
# What is read of a log for a page: all of it up to this size, of a larger one as much in even blocks.
MOST_BYTES, BLOCKS = 64_000_000, 16
LARGEST = 1e300  # of a value: sums and multiples of the values of a log stay finite

_Line = tuple[bytes, dict[str, Any]]  # as it is stored, and parsed


class JsonLines:
    """A log of one JSON object a line; a resumed run first drops what comes after its step."""

    def __init__(self, path: Path, lines: Iterable[bytes]) -> None:
        with files.atomic_writer(path) as stream:
            for line in lines:
                stream.write(line.rstrip() + b"\n")
        self._path = path
        self._stream: IO[str] = path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Append one object and hand it to the system, so that a killed run keeps it."""
        with self._named_errors():
            self._stream.write(json.dumps(line, allow_nan=False) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        with self._named_errors():
            self._stream.close()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """A full disk names no file."""
        try:
            yield
        except OSError as error:
            raise files.error_about(self._path, error) from None


def metrics_log(run_dir: Path, from_step: int, *, evaluated: bool) -> JsonLines:
    """metrics.jsonl, to continue from ``from_step``; ``evaluated``: that step's evaluation was saved too."""
    path, last = run_dir / run_files.METRICS, from_step if evaluated else from_step - 1
    return JsonLines(
        path,
        (
            text
            for text, line in _stored(path, _metrics, LONGEST_LINE)
            if line["step"] <= (last if "val_loss" in line else from_step)
        ),
    )


def samples_log(run_dir: Path, from_step: int, *, evaluated: bool) -> JsonLines:
    """samples.jsonl, ``step`` and ``text`` a line, likewise: samples are made at evaluations."""
    path, last = run_dir / run_files.SAMPLES, from_step if evaluated else from_step - 1
    stored = _stored(path, _samples, LONGEST_SAMPLE_LINE)
    return JsonLines(path, (text for text, line in stored if line["step"] <= last))


def parameters_log(run_dir: Path, from_step: int, *, watched: bool) -> JsonLines | None:
    """parameters.jsonl, likewise; None where the run is not ``watched`` and has none.

    The line of the beginning is written again by a run that has made no step.
    """
    path = run_dir / run_files.PARAMETERS
    if not watched and not path.exists():
        return None
    stored = _stored(path, _parameters, LONGEST_PARAMETERS_LINE)
    return JsonLines(path, (text for text, line in stored if line["step"] <= (from_step or -1)))


def read_parameters(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a parameters.jsonl with their step and components, the empty list without one.

    Of a very large one a sample in even blocks. Raises FormatError for what is not a regular file.
    """
    with _open_log(path) as (stream, size):
        lines = _parameters(_bounded(stream, size, LONGEST_PARAMETERS_LINE))
        return [line for _, line in lines]


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a samples.jsonl with their step and text, the empty list without one.

    Of a very large one a sample in even blocks. Raises FormatError for what is not a regular file.
    """
    with _open_log(path) as (stream, size):
        return [line for _, line in _samples(_bounded(stream, size, LONGEST_SAMPLE_LINE))]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a metrics.jsonl, the empty list without one; a torn last line is left out.

    Raises FormatError for what is not a regular file.
    """
    return [line for _, line in _stored(path, _metrics, LONGEST_LINE)]


def read_points(path: Path) -> list[dict[str, Any]]:
    """As `read_metrics`, for a plot: of many lines some thousands, evenly, and up to the last.

    Evaluations are few and are thinned apart from the other lines.
    """
    with _open_log(path) as (stream, size):
        remaining = Counter(map(_is_evaluation, _bounded(stream, size, LONGEST_LINE)))
        every = {kind: -(-count // MOST_POINTS) for kind, count in remaining.items()}
        thinned = []
        for text in _bounded(stream, size, LONGEST_LINE):
            kind = _is_evaluation(text)
            remaining[kind] -= 1
            if (
                remaining[kind] % every.get(kind, 1) == 0
            ):  # a log that grows has more than were counted
                thinned.append(text)
        return [line for _, line in _metrics(thinned)]


def _stored(
    path: Path, select: Callable[[Iterable[bytes]], Iterator[_Line]], longest: int
) -> Iterator[_Line]:
    """One at a time: a log may be larger than memory."""
    with _open_log(path) as (stream, _):
        yield from select(_lines(stream, longest))


def _is_evaluation(text: bytes) -> bool:
    return b"val_loss" in text


@contextlib.contextmanager
def _open_log(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """A log and its size; an empty stream where there is none."""
    if not path.exists():
        yield io.BytesIO(), 0
        return
    with open_regular(path) as opened:
        yield opened


def _bounded(stream: IO[bytes], size: int, longest: int) -> Iterator[bytes]:
    """The lines of a log of ``size`` bytes, of a large one those in even blocks, its ends among them."""
    block = MOST_BYTES // BLOCKS
    if size <= MOST_BYTES:
        stream.seek(0)
        yield from _lines(stream, longest)
        return
    for number in range(BLOCKS):
        start = number * (size - block) // (BLOCKS - 1)
        stream.seek(start)
        lines = stream.read(block).splitlines()
        yield from lines[0 if number == 0 else 1 : None if number == BLOCKS - 1 else -1]


def _lines(stream: IO[bytes], longest: int) -> Iterator[bytes]:
    """The lines of a stream; one above ``longest`` bytes is passed over in pieces that fit memory."""
    is_beginning = True
    while text := stream.readline(longest + 1):
        is_end = text.endswith(b"\n")
        if is_beginning and (is_end or len(text) <= longest):
            yield text
        is_beginning = is_end


def _metrics(lines: Iterable[bytes]) -> Iterator[_Line]:
    for text in lines:
        line = _parse(text, LONGEST_LINE)
        if line is not None and all(map(_is_finite, line.values())):
            yield text, line


def _samples(lines: Iterable[bytes]) -> Iterator[_Line]:
    for text in lines:
        line = _parse(text, LONGEST_SAMPLE_LINE)
        if line is not None and isinstance(line.get("text"), str):
            yield text, line


def _parameters(lines: Iterable[bytes]) -> Iterator[_Line]:
    for text in lines:
        line = _parse(text, LONGEST_PARAMETERS_LINE)
        if line is not None and isinstance(line.get("components"), dict):
            yield text, line


def _parse(text: bytes, longest: int) -> dict[str, Any] | None:
    """The object of one line; None where it is not one of a step."""
    try:
        line = json.loads(text) if len(text) <= longest else None
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and type(line.get("step")) is int else None


def _is_finite(value: object) -> bool:
    """Whether it is a number that can be computed with: neither NaN, nor infinite, nor near that."""
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST  # type: ignore[operator]
