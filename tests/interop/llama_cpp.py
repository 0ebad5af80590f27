"""A real llama.cpp for the tests: node-llama-cpp's prebuilt library, which no compiler is needed for.

NODE_LLAMA_CPP names the folder where `npm install node-llama-cpp` was run; `make llama` does both.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

VARIABLE = "NODE_LLAMA_CPP"
PROGRAM = Path(__file__).with_name("llama_cpp.mjs")


class LlamaCppError(Exception):
    """What llama.cpp refused, in its own words."""


class LlamaCpp:
    """One process with one model open at a time; it is started again when it was aborted."""

    def __init__(self, folder: str) -> None:
        self._command = ["node", str(PROGRAM), folder]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: str, **options: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"request": request} | options) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            self._process = self._start()
            raise LlamaCppError(f"aborted: {errors[-500:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise LlamaCppError(answer["error"])
        return answer["result"]

    def open(self, path: Path) -> dict[str, Any]:
        """Load a file; its bos, eos, add_bos and context."""
        description: dict[str, Any] = self.ask("open", path=str(path))
        return description

    def logits(self, tokens: list[int], *, last: bool = False) -> np.ndarray:
        """(n, V), after each of the tokens, or (1, V) after the last."""
        return np.array(self.ask("logits", tokens=tokens, last=last))

    def close(self) -> None:
        self._process.communicate()


def started() -> Iterator[LlamaCpp]:
    """The body of a fixture: a process, or a skip that says what is missing."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} does not name a folder with node-llama-cpp: see `make llama`")
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    process = LlamaCpp(folder)
    yield process
    process.close()


class _QuantizeParameters(ctypes.Structure):
    """The beginning of `llama_model_quantize_params` in llama.h, and more than its rest."""

    _fields_ = (
        ("nthread", ctypes.c_int32),
        ("ftype", ctypes.c_int32),
        ("rest", ctypes.c_ubyte * 1024),
    )


def quantize(source: Path, out: Path, file_type: int) -> None:
    """What llama.cpp's program llama-quantize does: the same function of the same library."""
    folder = Path(os.environ[VARIABLE]) / "node_modules" / "@node-llama-cpp" / "linux-x64" / "bins"
    if not folder.is_dir():
        pytest.skip("its quantizer is called in the library for Linux on x86-64 alone")
    ctypes.CDLL(str(next(folder.glob("*/libggml.*"))), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(next(folder.glob("*/libllama.*"))))
    library.llama_model_quantize_default_params.restype = _QuantizeParameters
    parameters = library.llama_model_quantize_default_params()
    parameters.nthread, parameters.ftype = 1, file_type
    status = library.llama_model_quantize(
        os.fsencode(source), os.fsencode(out), ctypes.byref(parameters)
    )
    assert status == 0
