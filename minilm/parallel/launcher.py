"""What torchrun says to a process in its environment. torch is not needed."""

from __future__ import annotations

import os
import sys
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


def restarts() -> int:
    """How often torchrun has started the processes again, after one of them failed."""
    text = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return int(text) if text.isascii() and text.isdigit() else 0


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
