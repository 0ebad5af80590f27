"""How fast known hardware multiplies, which MFU is a share of, and how much memory it really has."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from minilm.errors import InputError
from minilm.units import parse_bytes

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


# Card -> the GB that it is sold with, and the GiB that torch finds ("total capacity" of its out-of-memory
# message; where drivers differ, the least): ECC and the driver take the rest of as many GiB.
CARD_MEMORY = {
    "T4": (16, 14.6),
    "RTX 3090": (24, 23.6),
    "RTX 4090": (24, 23.5),
    "A10": (24, 22.0),
    "L4": (24, 22.0),
    "RTX 5090": (32, 31.3),
    "A100-40GB": (40, 39.4),
    "A40": (48, 44.3),
    "L40S": (48, 44.3),
    "RTX A6000": (48, 47.4),
    "A100-80GB": (80, 79.1),
    "H100": (80, 79.1),
    "H200": (141, 139.7),
    "B200": (180, 178.3),
}


class Cards(NamedTuple):
    """``number`` equal cards of ``bytes_each`` bytes."""

    number: int
    bytes_each: int


def parse_cards(text: str, where: str) -> Cards:
    """24GB, 2x48GB, H100, 8xH100. Raises InputError naming ``where``."""
    match = re.fullmatch(r"(?:(\d{1,4})\s*[x×*]\s*)?(.+)", text.strip(), re.ASCII | re.IGNORECASE)
    number, size = (int(match[1] or 1), match[2]) if match else (1, text)
    names = {_plain(name): gib for name, (_, gib) in CARD_MEMORY.items()}
    if _plain(size) in names:
        bytes_each = int(names[_plain(size)] * 2**30)
    elif size[:1].isdecimal():
        bytes_each = parse_bytes(size, where)
    else:
        expected = "a size such as 24GB, 80GiB or 2x48GB, or a card"
        raise InputError(where, repr(text[:40]), expected, f"cards are {', '.join(CARD_MEMORY)}")
    if number < 1:
        raise InputError(where, repr(text[:40]), "at least one card")
    return Cards(number, bytes_each)


def physical_memory() -> int | None:
    """Bytes of this machine's memory; None on a system that does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf; others not these names
        return None


def cards_sold_as(size: int) -> dict[str, int]:
    """The bytes of each known card that is sold with ``size`` bytes, a whole number of GB."""
    return {
        name: int(gib * 2**30) for name, (sold, gib) in CARD_MEMORY.items() if sold * 10**9 == size
    }


def _plain(name: str) -> str:
    return re.sub(r"[\s-]", "", name).upper()


def gpu_peak_flops(name: str) -> float | None:
    """FLOP/s of the GPU of that name, as torch.cuda.get_device_name() spells it; None for an unknown one.

    After the model may come its form and memory; anything else (Laptop GPU, D, SUPER) is another card.
    """
    for part in sorted(GPU_TFLOPS, key=len, reverse=True):
        if re.search(rf"\b{part}\b([- ](SXM\d?|PCIE|PCIe|HBM\w*|\d+GB|Generation))*$", name):
            return GPU_TFLOPS[part] * 1e12
    return None
