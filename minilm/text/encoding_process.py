"""A process that encodes texts: lists of them in, as lines of JSON, their tokens out.

It is started with the path of a tokenizer.json and the dtype of the tokens. Of each list the reply is a line
of JSON, then the tokens of all its texts as bytes. It ends with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minilm.errors import InputError
from minilm.text.tokenizer_file import load_tokenizer


def main() -> None:
    """Answer the lines of standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks handles Ctrl-C
    path, dtype = sys.argv[-2:]
    tokenizer = load_tokenizer(Path(path))
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin.buffer:
            reply: dict[str, Any]
            if not line.endswith(b"\n"):
                return  # the process that asks was killed in the middle of it
            try:
                arrays = [tokenizer.encode(text).astype(dtype) for text in json.loads(line)]
            except InputError as error:
                reply = {"error": [str(error.where), error.got, error.expected, error.remedy]}
                arrays = []
            else:
                reply = {"lengths": [len(array) for array in arrays]}
            sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
            sys.stdout.buffer.write(np.concatenate([np.empty(0, dtype), *arrays]).tobytes())
            sys.stdout.buffer.flush()
