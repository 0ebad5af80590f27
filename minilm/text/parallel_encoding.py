"""Texts encoded by several processes, the results in order.

Processes, not the threads of the tokenizers library: what it returns becomes arrays under one interpreter's
lock. They are started as `encoding_process`, which imports neither the program's main module, as those of
`multiprocessing` do, nor has any state of this process.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from minilm.errors import InputError, TokenizerError

Item = TypeVar("Item")
Tokens = NDArray[np.unsignedinteger[Any]]

BATCH_CHARACTERS = 2**19  # what a process encodes at once
MOST_PROCESSES = 8

_PROCESS = (
    "import sys; sys.path[:] = sys.argv[1:-2]; "
    "from minilm.text.encoding_process import main; main()"
)


def available_processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def encode_in_order(
    items: Iterable[Item],
    text_of: Callable[[Item], str],
    *,
    tokenizer: Path,
    dtype: np.dtype[Any],
    processes: int,
) -> Iterator[tuple[Item, Tokens]]:
    """Each item with the tokens of its text, by the tokenizer.json at ``tokenizer``.

    Raises TokenizerError as the tokenizer does, InputError where a process was killed. The processes end with
    this generator, or with the process that runs it.
    """
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_worker(tokenizer, dtype)) for _ in range(processes)]
        # The workers that have a batch, the oldest first. A worker gets another one only after its reply, or
        # both sides might wait for the other to read.
        pending: collections.deque[tuple[subprocess.Popen[bytes], list[Item]]] = collections.deque()
        idle = collections.deque(workers)
        for batch in _batches(items, text_of):
            if not idle:
                worker, finished = pending.popleft()
                idle.append(worker)
                yield from zip(finished, _reply(worker, dtype), strict=True)
            worker = idle.popleft()
            _send(worker, [text_of(item) for item in batch])
            pending.append((worker, batch))
        while pending:
            worker, finished = pending.popleft()
            yield from zip(finished, _reply(worker, dtype), strict=True)


def _batches(items: Iterable[Item], text_of: Callable[[Item], str]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    characters = 0
    for item in items:
        batch.append(item)
        characters += len(text_of(item))
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@contextlib.contextmanager
def _worker(tokenizer: Path, dtype: np.dtype[Any]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", _PROCESS, *sys.path, str(tokenizer), dtype.str],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            with contextlib.suppress(OSError):  # what it did not read
                _stream(process.stdin).close()


def _send(worker: subprocess.Popen[bytes], texts: Sequence[str]) -> None:
    with contextlib.suppress(OSError):  # one that has ended, which gives no reply either
        _stream(worker.stdin).write(json.dumps(texts).encode() + b"\n")
        _stream(worker.stdin).flush()


def _reply(worker: subprocess.Popen[bytes], dtype: np.dtype[Any]) -> list[Tokens]:
    stdout = _stream(worker.stdout)
    line = stdout.readline()
    if line.endswith(b"\n"):
        reply = json.loads(line)
        if "error" in reply:
            raise TokenizerError(*reply["error"])
        lengths = reply["lengths"]
        data = stdout.read(sum(lengths) * dtype.itemsize)
        if len(data) == sum(lengths) * dtype.itemsize:
            return np.split(np.frombuffer(data, dtype), np.cumsum(lengths)[:-1])
    raise InputError(
        "encoding",
        f"a process that ended with status {worker.wait()}",
        "enough memory for it",
        "the same command continues where this one stopped",
    )


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "they are pipes"
    return stream
