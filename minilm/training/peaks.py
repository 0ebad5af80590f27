"""How fast this machine can multiply at most, which MFU is a share of.

Model FLOPs utilisation: Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix B. On a GPU the peak is its
maker's figure for dense 16-bit products summed in float32; on a CPU it is measured here.
"""

from __future__ import annotations

import re
import time

import torch
from torch.nn import functional as F

# TFLOP/s by a part of torch.cuda.get_device_name(). From NVIDIA's data sheets of
# each card (where a sheet gives the rate with sparsity, half of it) and, for GeForce, the appendices of the
# GA102, AD102 and GB202 white papers.
GPU_TFLOPS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H200": 989,
    "GH200": 989,
    "B200": 2250,
    "A100": 312,
    "A30": 165,
    "A40": 149.7,
    "A10": 125,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "RTX A6000": 154.8,
    "RTX 6000 Ada": 364,
    "RTX 3090": 71,
    "RTX 4090": 165.2,
    "RTX 5090": 209.5,
}

# Of the products that are timed on a CPU, the smallest first; and for how long.
_SIDES, _SECONDS = (256, 1024), 0.05


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOP/s of matrix products in ``dtype``; None where it is not known."""
    if device.type == "cpu":
        return measured_peak(dtype)
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        return known_peak(torch.cuda.get_device_name(device))
    return None


def known_peak(name: str) -> float | None:
    """The table's FLOP/s for a GPU's name; None for one that it does not have.

    After the model may come its form and memory; anything else (Laptop GPU, D, SUPER) is another card.
    """
    for part in sorted(GPU_TFLOPS, key=len, reverse=True):
        if re.search(rf"\b{part}\b([- ](SXM\d?|PCIE|PCIe|HBM\w*|\d+GB|Generation))*$", name):
            return GPU_TFLOPS[part] * 1e12
    return None


def measured_peak(dtype: torch.dtype) -> float:
    """The best FLOP/s of square products on this CPU, from about a twentieth of a second.

    Where small ones already take that long, as in a type that the CPU has no units for, these say it.
    """
    best, end = 0.0, time.perf_counter() + _SECONDS
    for side in _SIDES:
        a, b = (torch.ones(side, side, dtype=dtype) for _ in range(2))
        F.linear(a, b)  # what a network multiplies with; torch.mm is slower in some types
        while True:
            begin = time.perf_counter()
            F.linear(a, b)
            now = time.perf_counter()
            best = max(best, 2 * side**3 / (now - begin))
            if side < _SIDES[-1] or now > end:
                break
        if now > end:
            break
    return best
