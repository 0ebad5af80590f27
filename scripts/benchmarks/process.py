"""A program run to its end, measured from outside: wall and processor time, memory, when it said what."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm import files
from minilm.costs.hardware import processor


@dataclass(frozen=True)
class Run:
    """A finished process. ``lines`` are those of its standard output, with the seconds at which they came."""

    status: int
    seconds: float
    cpu_seconds: float
    peak_mib: float
    lines: tuple[tuple[float, str], ...]
    errors: str

    @property
    def output(self) -> str:
        """Its standard output as a whole."""
        return "".join(line for _, line in self.lines)


def run(
    command: Sequence[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> Run:
    """Run ``command`` to its end; memory is its own largest resident set."""
    variables = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    # Installed packages come compiled; a checkout is compiled by its first run.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    variables |= environment or {}
    with tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=variables, cwd=cwd
        )
        assert process.stdout is not None
        lines = [
            (time.perf_counter() - begin, line.decode(errors="replace")) for line in process.stdout
        ]
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        errors.seek(0)
        error_text = errors.read().decode(errors="replace")
    # Linux counts in KiB, macOS in bytes.
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Run(process.returncode, seconds, cpu_seconds, peak, tuple(lines), error_text)


def check_out(out: Path | None) -> bool:
    """Whether --out can be written; said before the minutes that a benchmark takes."""
    if out is None or out.absolute().parent.is_dir():
        return True
    print(f"error: --out: {out.parent}: no such folder", file=sys.stderr)
    return False


def write_results(results: Mapping[str, Any], out: Path | None) -> None:
    """Print JSON, and write it to ``out`` too."""
    print(json.dumps(results, indent=2), flush=True)
    save_results(results, out)


def save_results(results: Mapping[str, Any], out: Path | None) -> None:
    """Write JSON to ``out``, where there is one."""
    if out is not None:
        files.write_bytes(out, f"{json.dumps(results, indent=2)}\n".encode())


def torch_machine() -> dict[str, Any]:
    """As `machine`, with the widest instructions by which torch multiplies, and its version."""
    import torch

    from minilm.model.device import has_bfloat16_tiles, multiplies_bfloat16_fast

    capability = torch.backends.cpu.get_cpu_capability().replace("AVX512", "AVX-512")
    if has_bfloat16_tiles():
        capability = "AMX"
    elif multiplies_bfloat16_fast():
        capability = f"{capability} with bfloat16"
    return machine() | {"instructions": capability, "torch": torch.__version__}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
