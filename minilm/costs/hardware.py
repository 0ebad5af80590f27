"""How fast known hardware multiplies: the makers' figures, which MFU is a share of."""

from __future__ import annotations

import re

# TFLOP/s of dense 16-bit products summed in float32, by a part of torch.cuda.get_device_name(). From NVIDIA's
# data sheets of each card (where a sheet gives the rate with sparsity, half of it) and, for GeForce, the
# appendices of the GA102, AD102 and GB202 white papers.
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


def gpu_peak_flops(name: str) -> float | None:
    """FLOP/s of the GPU of that name, as torch.cuda.get_device_name() spells it; None for an unknown one.

    After the model may come its form and memory; anything else (Laptop GPU, D, SUPER) is another card.
    """
    for part in sorted(GPU_TFLOPS, key=len, reverse=True):
        if re.search(rf"\b{part}\b([- ](SXM\d?|PCIE|PCIe|HBM\w*|\d+GB|Generation))*$", name):
            return GPU_TFLOPS[part] * 1e12
    return None
