"""Joules that a run took, from the counters that the hardware keeps; None where none can be read.

CUDA: NVML's total energy of the card (nvmlDeviceGetTotalEnergyConsumption, in millijoules). CPU on Linux:
RAPL's packages (Documentation/power/powercap/powercap.rst, energy_uj in microjoules), which count
everything that runs there and on most systems are readable by root alone.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")

# A counter's value in joules, and where it starts again from zero (0: never).
Counter = tuple[float, float]


class EnergyMeter:
    """Reads the device's counters when it is made, and adds up what they have counted since."""

    def __init__(self, device_type: str, uuid: str = "") -> None:
        """``uuid`` is a CUDA card's: NVML counts all cards, CUDA those that the process may see."""
        self._read: Callable[[], list[Counter] | None] = lambda: None
        if device_type == "cuda":
            self._read = lambda: _nvml(uuid)
        elif device_type == "cpu":
            self._read = lambda: _rapl(POWERCAP)
        self._last, self._joules = self._read(), 0.0

    def joules(self) -> float | None:
        """Since the meter was made. Call it at least every few minutes: RAPL's counters wrap."""
        if self._last is None:
            return None
        now = self._read()
        if now is None or len(now) != len(self._last):
            self._last = None
            return None
        for (before, limit), (after, _) in zip(self._last, now, strict=True):
            self._joules += after - before + (limit if after < before else 0.0)
        self._last = now
        return self._joules


def _nvml(uuid: str) -> list[Counter] | None:
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        return [(nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, 0.0)]
    except nvml.NVMLError:  # no driver, or a card without the counter
        return None


def _rapl(folder: Path) -> list[Counter] | None:
    """Whole packages (intel-rapl:0), not the parts of one (intel-rapl:0:0); AMD's have the name too."""
    packages = sorted(path for path in folder.glob("intel-rapl:*") if path.name.count(":") == 1)
    try:
        return [
            (_microjoules(path / "energy_uj"), _microjoules(path / "max_energy_range_uj"))
            for path in packages
        ] or None
    except (OSError, ValueError):
        return None


def _microjoules(path: Path) -> float:
    return int(path.read_text()) / 1e6
