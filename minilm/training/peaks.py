"""How fast this machine can multiply at most, which MFU is a share of.

Model FLOPs utilisation: Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix B. On a GPU the peak is its
maker's figure for dense 16-bit products summed in float32; on a CPU it is measured here.
"""

from __future__ import annotations

import re
import time

import torch

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

_SIDE, _SECONDS = 1024, 0.05  # of the product that is timed on a CPU, and for how long


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
        if re.search(rf"\b{part}\b([- ](SXM\d?|PCIE|HBM\w*|\d+GB|Generation))*$", name):
            return GPU_TFLOPS[part] * 1e12
    return None


def measured_peak(dtype: torch.dtype) -> float:
    """The best FLOP/s of square products on this CPU, from a twentieth of a second."""
    a, b = (torch.ones(_SIDE, _SIDE, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while (begin := time.perf_counter()) < end:
        torch.mm(a, b)
        best = min(best, time.perf_counter() - begin)
    return 2 * _SIDE**3 / best
