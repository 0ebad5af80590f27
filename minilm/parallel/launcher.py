"""What torchrun says to a process in its environment. torch is not needed."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from minilm.errors import InputError

_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


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
    return True


def restarts() -> int:
    """How often torchrun has started the processes again, after one of them failed."""
    text = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def silence_all_but_first() -> None:
    """Only the process of rank 0 prints; in the others standard output and error go nowhere.

    Nor does torch, where it is not imported yet, print stack traces of its warnings when a connection ends.
    """
    if not started_by_torchrun():
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if os.environ["RANK"] != "0":
        sys.stdout = sys.stderr = nowhere()


def nowhere() -> TextIO:
    """A stream that drops what is written."""
    return open(os.devnull, "w", encoding="utf-8")
