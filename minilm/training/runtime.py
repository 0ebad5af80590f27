"""Where and how the arithmetic runs: device, autocast dtype, compilation. Resolved once, from 'auto'."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from minilm.config import TrainConfig
from minilm.errors import ConfigError

# A run of fewer FLOPs than this ends on a CPU before compilation (20 to 55 s) has paid for itself.
COMPILE_FROM_FLOPS = 3e13


@dataclass(frozen=True)
class Runtime:
    """The choices made; ``notes`` say in a line each why one is not what was hoped for."""

    device: torch.device
    dtype: torch.dtype
    compile: bool
    notes: tuple[str, ...] = ()

    @property
    def dtype_name(self) -> str:
        """float32, bfloat16 or float16."""
        return str(self.dtype).removeprefix("torch.")

    def autocast(self) -> AbstractContextManager[object]:
        """Matrix products in ``dtype``; weights and sums stay float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def resolve(config: TrainConfig, num_parameters: int, tokens_per_step: int) -> Runtime:
    """Choose for this machine. Raises ConfigError for a device or compiler that is asked for and absent."""
    device = _device(config.device)
    dtype = _dtype(config.dtype, device)
    flops = 6.0 * num_parameters * tokens_per_step * config.max_steps
    compiled, notes = _compile(config.compile, device, dtype, flops)
    return Runtime(device, dtype, compiled, notes)


def _device(wanted: str) -> torch.device:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if (wanted == "cuda" and not cuda) or (wanted == "mps" and not mps):
        raise ConfigError("device", f"{wanted}, which torch does not find here", "cpu or auto")
    return torch.device(wanted)


def _dtype(wanted: str, device: torch.device) -> torch.dtype:
    if wanted != "auto":
        chosen: torch.dtype = getattr(torch, wanted)
        return chosen
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu" and multiplies_bfloat16_fast():
        return torch.bfloat16
    return torch.float32


def multiplies_bfloat16_fast() -> bool:
    """Whether this CPU has bfloat16 matrix tiles (AMX); elsewhere bfloat16 is slower than float32."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def _compile(
    wanted: str, device: torch.device, dtype: torch.dtype, flops: float
) -> tuple[bool, tuple[str, ...]]:
    if wanted == "off":
        return False, ()
    if wanted == "auto":
        # On a CPU compilation was measured to pay with bfloat16, where it fuses the casts away; in
        # float32 it gains a few percent (docs/performance.md).
        worth_it = device.type == "cuda" or (
            device.type == "cpu" and dtype == torch.bfloat16 and flops >= COMPILE_FROM_FLOPS
        )
        if not worth_it:
            return False, ()
    if device.type == "cpu" and not has_cpp_compiler():
        if wanted == "on":
            raise ConfigError("compile", "on, without a C++ compiler", "g++ or clang++ on the PATH")
        return False, ("not compiling: no C++ compiler on the PATH",)
    return True, ()


def has_cpp_compiler() -> bool:
    """Whether torch.compile finds what it needs on a CPU."""
    named = os.environ.get("CXX")
    return any(shutil.which(name) for name in (named, "g++", "clang++", "c++") if name)
