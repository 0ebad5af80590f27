"""Joules from counters that exist, and None, never a guess, where one does not."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from minilm.training import energy
from minilm.training.energy import EnergyMeter


def counters(folder: Path, *microjoules: int, limit: int = 1_000_000_000) -> None:
    for number, value in enumerate(microjoules):
        package = folder / f"intel-rapl:{number}"
        package.mkdir(exist_ok=True)
        (package / "energy_uj").write_text(f"{value}\n")
        (package / "max_energy_range_uj").write_text(f"{limit}\n")


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    return tmp_path


def test_packages_add_up_and_their_parts_do_not(powercap: Path) -> None:
    counters(powercap, 5_000_000, 7_000_000)
    (powercap / "intel-rapl:0:0").mkdir()  # the cores of package 0, counted in it already
    (powercap / "intel-rapl:0:0" / "energy_uj").write_text("0")
    meter = EnergyMeter("cpu")
    assert meter.joules() == 0
    counters(powercap, 6_500_000, 7_500_000)
    assert meter.joules() == pytest.approx(2.0)
    counters(powercap, 6_600_000, 7_500_000)
    assert meter.joules() == pytest.approx(2.1)


def test_a_counter_that_wraps(powercap: Path) -> None:
    counters(powercap, 999_000_000)
    meter = EnergyMeter("cpu")
    counters(powercap, 2_000_000)
    assert meter.joules() == pytest.approx(3.0)


def test_unknown_where_there_is_no_counter_or_it_goes(powercap: Path) -> None:
    assert EnergyMeter("cpu").joules() is None
    assert EnergyMeter("mps").joules() is None
    counters(powercap, 1)
    meter = EnergyMeter("cpu")
    (powercap / "intel-rapl:0" / "energy_uj").write_text("not a number")
    assert meter.joules() is None
    counters(powercap, 2)
    assert meter.joules() is None  # what was missed cannot be known


def test_nvml_counts_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, uuids = iter([1000.0, 4500.0]), []

    class NVMLError(Exception):
        pass

    def refuse() -> None:
        raise NVMLError

    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=uuids.append,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(reading),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert EnergyMeter("cuda", "1-2").joules() == pytest.approx(3.5)
    assert uuids == ["GPU-1-2", "GPU-1-2"]
    nvml.nvmlInit = refuse
    assert EnergyMeter("cuda").joules() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert EnergyMeter("cuda").joules() is None
