"""This processor, and known GPUs: how fast they multiply, their memory, links and power."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from minilm.errors import InputError
from minilm.units import parse_bytes


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A card: what it is sold with, how fast it multiplies, what it is connected by, what it takes.

    ``sold`` are GB; ``usable`` the GiB that torch finds ("total capacity" of its out-of-memory message;
    where drivers differ, the least): ECC and the driver take the rest of as many GiB. 0: not known.
    ``tflops`` are those of dense products, of 16-bit types summed in float32; a dtype that it has no units
    for is left out. ``link`` is in GB/s, one direction, to the other cards of a
    server; ``network`` in Gbit/s a card between servers, as NVIDIA's own servers of the card have it.
    """

    sold: int
    usable: float = 0
    tflops: Mapping[str, float]
    link: float
    network: int = 0
    watts: int

    @property
    def memory(self) -> int:
        """Bytes: what torch finds, else what the card is sold with."""
        return int(self.usable * 2**30) if self.usable else self.sold * 10**9

    def peak_flops(self, dtype: str) -> float | None:
        """FLOP/s of training in ``dtype``, which in float32 multiplies in TF32 where there is one."""
        name = "tf32" if dtype == "float32" and "tf32" in self.tflops else dtype
        tflops = self.tflops.get(name)
        return None if tflops is None else tflops * 1e12


def _peaks(half: float, single: float) -> dict[str, float]:
    """From Ampere on; TF32 is half as fast as 16 bits."""
    return {"bfloat16": half, "float16": half, "tf32": half / 2, "float32": single}


# GB/s of 16 lanes of PCIe, one direction.
_PCIE3, _PCIE4, _PCIE5 = 15.75, 31.5, 63.0
# SXM modules share one NVSwitch; NVLink bridges of the others join two cards, the rest use PCIe.
_HOPPER: dict[str, Any] = {"link": 450.0, "network": 400, "watts": 700}
_V100: dict[str, Any] = {
    "tflops": {"float16": 125.0, "float32": 15.7},
    "link": 150.0,
    "network": 50,
    "watts": 300,
}

# From NVIDIA's data sheets of each card (where a sheet gives a rate with sparsity, half of it) and, for
# GeForce, the appendices of the GA102, AD102 and GB202 white papers. Networks: the user guides of DGX-1, DGX
# A100, DGX H100 and DGX B200.
GPUS: dict[str, Gpu] = {
    "T4": Gpu(
        sold=16,
        usable=14.6,
        tflops={"float16": 65.0, "float32": 8.1},
        link=_PCIE3,
        watts=70,
    ),
    "V100-16GB": Gpu(sold=16, usable=15.7, **_V100),
    "V100-32GB": Gpu(sold=32, usable=31.7, **_V100),
    "RTX 3090": Gpu(sold=24, usable=23.6, tflops=_peaks(71, 35.6), link=_PCIE4, watts=350),
    "RTX 4090": Gpu(sold=24, usable=23.5, tflops=_peaks(165.2, 82.6), link=_PCIE4, watts=450),
    "RTX 5090": Gpu(sold=32, usable=31.3, tflops=_peaks(209.5, 104.8), link=_PCIE5, watts=575),
    "A10": Gpu(sold=24, usable=22.0, tflops=_peaks(125, 31.2), link=_PCIE4, watts=150),
    "A30": Gpu(sold=24, tflops=_peaks(165, 10.3), link=_PCIE4, watts=165),
    "L4": Gpu(sold=24, usable=22.0, tflops=_peaks(121, 30.3), link=_PCIE4, watts=72),
    "A40": Gpu(sold=48, usable=44.3, tflops=_peaks(149.7, 37.4), link=_PCIE4, watts=300),
    "L40": Gpu(sold=48, tflops=_peaks(181, 90.5), link=_PCIE4, watts=300),
    "L40S": Gpu(sold=48, usable=44.3, tflops=_peaks(362, 91.6), link=_PCIE4, watts=350),
    "RTX A6000": Gpu(sold=48, usable=47.4, tflops=_peaks(154.8, 38.7), link=_PCIE4, watts=300),
    "RTX 6000 Ada": Gpu(sold=48, tflops=_peaks(364, 91.1), link=_PCIE4, watts=300),
    "A100-40GB": Gpu(
        sold=40, usable=39.4, tflops=_peaks(312, 19.5), link=300.0, network=200, watts=400
    ),
    "A100-80GB": Gpu(
        sold=80, usable=79.1, tflops=_peaks(312, 19.5), link=300.0, network=200, watts=400
    ),
    "H100": Gpu(sold=80, usable=79.1, tflops=_peaks(989, 67), **_HOPPER),
    "H100 PCIe": Gpu(sold=80, tflops=_peaks(756, 51), link=_PCIE5, watts=350),
    "H100 NVL": Gpu(sold=94, tflops=_peaks(835, 60), link=_PCIE5, watts=400),
    "H200": Gpu(sold=141, usable=139.7, tflops=_peaks(989, 67), **_HOPPER),
    "GH200": Gpu(sold=96, tflops=_peaks(989, 67), **_HOPPER),
    "B200": Gpu(
        sold=180, usable=178.3, tflops=_peaks(2250, 75), link=900.0, network=400, watts=1000
    ),
}


class Cards(NamedTuple):
    """``number`` equal cards of ``bytes_each`` bytes."""

    number: int
    bytes_each: int


def parse_cards(text: str, where: str) -> Cards:
    """24GB, 2x48GB, H100, 8xH100. Raises InputError naming ``where``."""
    match = re.fullmatch(r"(?:(\d{1,4})\s*[x×*]\s*)?(.+)", text.strip(), re.ASCII | re.IGNORECASE)
    number, size = (int(match[1] or 1), match[2]) if match else (1, text)
    name = find_gpu(size)
    if name is not None:
        bytes_each = GPUS[name].memory
    elif size[:1].isdecimal():
        bytes_each = parse_bytes(size, where)
    else:
        expected = "a size such as 24GB, 80GiB or 2x48GB, or a card"
        raise InputError(where, repr(text[:40]), expected, f"cards are {', '.join(GPUS)}")
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
    """The usable bytes of each card that is sold with ``size`` bytes, a whole number of GB."""
    return {
        name: gpu.memory for name, gpu in GPUS.items() if gpu.usable and gpu.sold * 10**9 == size
    }


def find_gpu(name: str) -> str | None:
    """``name`` as `GPUS` has it, whatever its spaces, hyphens and capitals; None for an unknown card."""
    return {_plain(known): known for known in GPUS}.get(_plain(name))


def _plain(name: str) -> str:
    return re.sub(r"[\s-]", "", name).upper()


def gpu_peak_flops(name: str, dtype: str = "bfloat16") -> float | None:
    """FLOP/s of the GPU of that name, as torch.cuda.get_device_name() spells it; None for an unknown one.

    After the model may come its form and memory; anything else (Laptop GPU, D, SUPER) is another card.
    """
    for known in sorted(GPUS, key=len, reverse=True):
        part = re.sub(r"-\d+GB$", "", known)
        if re.search(rf"\b{part}\b([- ](SXM\d?|PCIE|PCIe|HBM\w*|\d+GB|Generation))*$", name):
            tflops = GPUS[known].tflops.get(dtype)
            return None if tflops is None else tflops * 1e12
    return None


def processor() -> str:
    """The processor by name, as far as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    fields = {
        name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines[::-1])
    }
    named = [fields[name] for name in ("model name", "model", "stepping") if name in fields]
    return " ".join(named) or platform.processor() or platform.machine()
