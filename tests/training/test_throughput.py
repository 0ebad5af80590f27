"""Seconds, tokens a second and joules: of this process, of intervals, and over a resume."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minilm.config import ModelConfig
from minilm.training import throughput as meters
from minilm.training.resume_state import Progress
from minilm.training.runtime import Runtime
from minilm.training.throughput import Throughput, measured_peak_flops, peak_flops


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(meters.time, "perf_counter", clock)
    monkeypatch.setattr(meters, "peak_flops", lambda device, dtype: 1e9)
    monkeypatch.setattr(meters.time, "monotonic", lambda: 107.0)
    return clock


def make(**progress: Any) -> Throughput:
    return Throughput(
        ModelConfig(),
        Runtime(torch.device("cpu"), torch.float32, False),
        Progress(**progress),
        started=100.0,
    )


def test_what_is_paused_is_in_no_rate(clock: Clock) -> None:
    throughput = make()
    clock.now += 2
    assert throughput.reading(200) == {"tokens_per_second": 100.0}
    clock.now += 1
    with throughput.paused(400):  # an evaluation that takes 50 seconds
        assert throughput.rate == 200
        clock.now += 50
    clock.now += 1
    assert throughput.reading(500) == {"tokens_per_second": 100.0}
    assert throughput.average(500) == 500 / 4


def test_utilisation_is_flops_over_the_peak(clock: Clock) -> None:
    throughput = make()
    flops = meters.flops_per_token(meters.layout(ModelConfig()), context=256)["training_per_token"]
    assert throughput.utilisation(1000.0) == pytest.approx(1000 * flops / 1e9)
    throughput.peak = None
    assert throughput.utilisation(1000.0) is None


def test_a_resumed_run_adds_up(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters.EnergyMeter, "joules", lambda self: 5.0)
    throughput = make(seconds=30.0, joules=11.0, tokens=1000)
    assert throughput.seconds() == 37.0
    assert throughput.joules() == 16.0
    assert throughput.average(1000) == 0.0
    clock.now += 10
    throughput.reading(2000)
    assert throughput.average(2000) == 100.0  # of this process alone
    assert make(joules=None).joules() is None  # an earlier process could not read it


def test_a_cpu_is_measured() -> None:
    assert 1e8 < measured_peak_flops(torch.float32) < 1e15


def test_an_unknown_peak_is_none() -> None:
    assert peak_flops(torch.device("mps"), torch.float32) is None
    assert peak_flops(torch.device("cuda"), torch.float32) is None
