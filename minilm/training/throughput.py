"""Throughput of a run: seconds, tokens a second, model FLOPs utilisation, joules.

Model FLOPs utilisation: Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix B. On a GPU the peak is its
maker's figure; on a CPU it is measured.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from minilm.architectures.minilm import layout
from minilm.config import ModelConfig
from minilm.costs.flops import flops_per_token
from minilm.costs.hardware import gpu_peak_flops
from minilm.training.energy import EnergyMeter
from minilm.training.resume_state import Progress
from minilm.training.runtime import Runtime

# The sides of the square products that are timed on a CPU, the smallest first, and for how long.
PEAK_SIDES, PEAK_SECONDS = (256, 1024), 0.05


class Throughput:
    """Of one call or command; what earlier ones took is in the progress that it begins with.

    ``started``: when it began, by time.monotonic(). ``length``: of the rows, by default the model's context.
    """

    def __init__(
        self,
        config: ModelConfig,
        runtime: Runtime,
        progress: Progress,
        started: float,
        length: int | None = None,
    ) -> None:
        flops = flops_per_token(layout(config), context=length or config.context_length)
        self._flops = flops["training_per_token"]
        self.peak = peak_flops(runtime.device, runtime.dtype)
        self._energy = EnergyMeter(runtime.device.type, card_uuid(runtime.device))
        self._started = started
        self._seconds_before, self._joules_before = progress.seconds, progress.joules
        self._first_tokens = progress.tokens
        self._training_seconds = 0.0
        self.rate = 0.0
        self._tokens, self._since = progress.tokens, time.perf_counter()

    def elapsed(self) -> float:
        """Wall time since the command, or the call, began."""
        return time.monotonic() - self._started

    def seconds(self) -> float:
        """Wall time of the run: what is elapsed, and what earlier processes took."""
        return self._seconds_before + self.elapsed()

    def joules(self) -> float | None:
        """Energy of the run; None if any of its processes could not read it."""
        here = self._energy.joules()
        if here is None or self._joules_before is None:
            return None
        return self._joules_before + here

    def reading(self, tokens: int) -> dict[str, float]:
        """Tokens a second since the last reading, which begins the next interval."""
        now = time.perf_counter()
        elapsed = max(now - self._since, 1e-9)
        self.rate = (tokens - self._tokens) / elapsed
        self._training_seconds += elapsed
        self._tokens, self._since = tokens, now
        self._energy.joules()
        return {"tokens_per_second": round(self.rate, 1)}

    @contextlib.contextmanager
    def paused(self, tokens: int) -> Iterator[None]:
        """Leave what happens in the block, evaluation and saving, out of the rate."""
        if tokens > self._tokens:
            self.reading(tokens)
        yield
        self._tokens, self._since = tokens, time.perf_counter()

    def average(self, tokens: int) -> float:
        """Tokens a second of this process's whole training; 0.0 before the first reading."""
        seconds = self._training_seconds
        return (tokens - self._first_tokens) / seconds if seconds else 0.0

    def utilisation(self, rate: float | None = None) -> float | None:
        """Model FLOPs at ``rate`` tokens a second, as a share of the peak; None where that is unknown."""
        if self.peak is None:
            return None
        return (self.rate if rate is None else rate) * self._flops / self.peak


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOP/s of matrix products in ``dtype``; None where it is not known."""
    if device.type == "cpu":
        return measured_peak_flops(dtype)
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        return gpu_peak_flops(torch.cuda.get_device_name(device), str(dtype).split(".")[-1])
    return None


@functools.cache
def measured_peak_flops(dtype: torch.dtype) -> float:
    """The best FLOP/s of square products on this CPU, from about a twentieth of a second.

    Where small ones already take that long, as in a type that the CPU has no units for, these say it.
    """
    best, sides = 0.0, list(PEAK_SIDES)
    now = time.perf_counter()
    end = now + PEAK_SECONDS
    while now <= end:
        if sides:
            side = sides.pop(0)
            a, b = (torch.ones(side, side, dtype=dtype) for _ in range(2))
            F.linear(a, b)  # what a network multiplies with; torch.mm is slower in some types
        begin = time.perf_counter()
        F.linear(a, b)
        now = time.perf_counter()
        best = max(best, 2 * side**3 / (now - begin))
    return best


def card_uuid(device: torch.device) -> str:
    """The UUID of a CUDA card, empty for other devices."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
