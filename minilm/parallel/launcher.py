"""What torchrun says to a process in its environment. torch is not needed."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

from minilm.errors import InputError
from minilm.safe_text import short_repr

# The parent of a process that torchrun has started, before torch is imported, which takes seconds.
LAUNCHER = os.getppid()

_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
MOST_PROCESSES = 2**20


def started_by_torchrun() -> bool:
    """Whether there may be other processes. Raises InputError where the environment is incomplete."""
    size = os.environ.get("WORLD_SIZE")
    missing = [name for name in _VARIABLES if name not in os.environ]
    if size is None or (size == "1" and missing):
        return False
    if missing:
        raise InputError(
            "WORLD_SIZE",
            f"{size}, without {missing[0]}",
            "all variables that torchrun sets",
            "start scripts/train.py with torchrun, or unset it",
        )
    processes = _number("WORLD_SIZE", 1, MOST_PROCESSES)
    for name in ("RANK", "LOCAL_RANK"):
        _number(name, 0, processes - 1)
    if "LOCAL_WORLD_SIZE" in os.environ:
        _number("LOCAL_WORLD_SIZE", 1, processes)
    _number("MASTER_PORT", 0, 2**16 - 1)
    return True


def _number(name: str, least: int, most: int) -> int:
    """The value of a variable. Raises InputError for any but a number in that range."""
    text = os.environ[name]
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        expected = f"a whole number from {least} to {most}, as torchrun sets it"
        raise InputError(name, short_repr(text), expected)
    return int(text)


def agent_has_the_store() -> bool:
    """Whether torchrun itself holds what the processes share, so that it was there before them."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def is_started_again() -> bool:
    """Whether torchrun counts it so; on another machine it may not, where that one's processes go on."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def is_of_this_launch(path: str | os.PathLike[str]) -> bool:
    """Whether the file was written since torchrun, which started this process, was itself started.

    So a run that this torchrun's processes have begun goes on when they are started again, and one that was
    there before is left alone, be it the first time that they are told so or the last.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or (age := process_age(LAUNCHER)) is None:
        return False
    try:
        return os.stat(path).st_mtime >= time.time() - age
    except OSError:
        return False


def process_age(pid: int) -> float | None:
    """Seconds since the process was started; None on systems without /proc."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # proc(5), field 22: ticks after boot
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, ValueError, IndexError):
        return None


def silence_all_but_first() -> None:
    """Only the process of rank 0 prints; in the others standard output and error go nowhere.

    Nor does torch, where it is not imported yet, print stack traces when a connection ends.
    """
    if not started_by_torchrun():
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    if os.environ["RANK"] != "0":
        sys.stdout = sys.stderr = nowhere()


def nowhere() -> TextIO:
    """A stream that drops what is written."""
    return open(os.devnull, "w", encoding="utf-8")
