"""The edge of the program: exceptions become one line on stderr and an exit status."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from minilm.errors import InputError

Arguments = TypeVar("Arguments")

DONE, CHECK_FAILED, BAD_INPUT = 0, 1, 2


def guarded(command: Callable[[], int]) -> int:
    """Run ``command``; what a user can cause is one `error:` line and 2, a signal 128 + its number."""
    try:
        status = command()
        sys.stdout.flush()  # a closed pipe is met here, not at exit
        return status
    except InputError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # The reader went away (`| head`): nothing to say, and nothing more to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "; free some space, then go on with --resume if it is a run" if full else ""
        return _fail(f"{error.filename or 'file system'}: {error.strerror or error}{advice}")
    except KeyboardInterrupt as stopped:
        return 128 + int(getattr(stopped, "signum", signal.SIGINT))


def _fail(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return BAD_INPUT


def parse_arguments(
    cls: Callable[..., Arguments], arguments: Sequence[str], program: str
) -> Arguments:
    """Read a command line with tyro; its boxed message becomes one line of InputError."""
    import tyro

    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return tyro.cli(cls, args=list(arguments), prog=program, description=cls.__doc__)
    except SystemExit as stop:
        if not stop.code:
            raise
        message: list[str] = []
        for line in captured.getvalue().splitlines():
            text = line.strip("│ ")
            if text.startswith("─"):
                break  # below the rule come hints
            if text and not text.startswith("╭"):
                message.append(text)
        first = " ".join(message).rstrip(".") or "these arguments cannot be read"
        raise InputError("arguments", first, f"what {program} --help lists") from None
