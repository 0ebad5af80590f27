"""Where a model computes and in which dtype: what `auto` becomes on this machine."""

from __future__ import annotations

import contextlib
import ctypes

import torch

from minilm.errors import ConfigError

# Between a model of 1.1M, which generates 0.9 times as fast in bfloat16, and one of 5.3M, 1.4 times.
FEWEST_BFLOAT16_PARAMETERS = 2_000_000


def choose_device(name: str) -> torch.device:
    """The device ``name``; auto: CUDA, else MPS, else the CPU. Raises ConfigError for an absent one."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if (name == "cuda" and not cuda) or (name == "mps" and not mps):
        raise ConfigError("device", f"{name}, which torch does not find here", "cpu or auto")
    return torch.device(name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype ``name``; auto: a 16-bit one where the device multiplies it fast, else float32."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu" and multiplies_bfloat16_fast():
        return torch.bfloat16
    return torch.float32


def choose_generation_dtype(name: str, device: torch.device, parameters: int) -> torch.dtype:
    """As `choose_dtype`, but auto leaves a small model on the CPU in float32, and each without AMX.

    A token of a small one is call overhead and not products, to which bfloat16 adds conversions. Of a large
    one it is the reading of weights: AVX-512's bfloat16 was no faster than float32 there (Zen 4).
    """
    if name == "auto" and device.type == "cpu":
        is_fast = has_bfloat16_tiles() and parameters >= FEWEST_BFLOAT16_PARAMETERS
        return torch.bfloat16 if is_fast else torch.float32
    return choose_dtype(name, device)


def map_large_tensors() -> None:
    """Give each tensor of 4 MiB or more back when it is freed, where the C library is glibc.

    Else it begins to keep them, up to 32 MiB each (mallopt(3), M_MMAP_THRESHOLD), in a heap with holes.
    For training on a packed base, which is to take little memory: steps take a sixth longer.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 4 * 2**20)


def keep_freed_memory() -> None:
    """Keep what a step frees for the next one, where the C library is glibc (mallopt(3)).

    Else the heap's end is given back after each backward pass, and its pages are asked for anew in the next
    step. Tensors of 32 MiB or more, the most that M_MMAP_THRESHOLD may be, are still given back.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


def release_free_memory() -> None:
    """Give what is not used any more back to the system, where the C library keeps it (glibc)."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def multiplies_bfloat16_fast() -> bool:
    """Whether this CPU multiplies bfloat16 itself; elsewhere bfloat16 is slower than float32.

    In matrix tiles (AMX), or in AVX-512 (from Zen 4 and Cooper Lake on), which is twice as fast as float32.
    """
    return has_bfloat16_tiles() or _is_capable("avx512_bf16", "_is_avx512_bf16_supported")


def has_bfloat16_tiles() -> bool:
    """Whether this CPU multiplies bfloat16 in matrix tiles (AMX)."""
    # Every processor with AMX tiles multiplies bfloat16 in them.
    return _is_capable("amx_bf16", "_is_amx_tile_supported")


def _is_capable(capability: str, function: str) -> bool:
    """What torch says of this CPU: in `get_capabilities` since 2.11, before by a function each."""
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get(capability, False))
    return bool(getattr(torch.cpu, function, lambda: False)())
