"""Device, dtype and compilation: what 'auto' becomes, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from minilm.config import TrainConfig
from minilm.errors import ConfigError
from minilm.training import runtime
from minilm.training.metrics import read_metrics
from minilm.training.runtime import resolve
from minilm.training.train import train
from tests.conftest import TINY_MODEL, TINY_SETTINGS

LONG = {"num_parameters": 10**7, "tokens_per_step": 10**4}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend to be a machine with these parts."""

    def pretend(*, amx: bool = False, cuda: bool = False, compiler: bool = True) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx})
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(runtime, "has_cpp_compiler", lambda: compiler)

    return pretend


def test_a_plain_cpu_stays_in_float32(machine: Any) -> None:
    machine()
    chosen = resolve(TrainConfig(), **LONG)
    assert (chosen.device.type, chosen.dtype) == ("cpu", torch.float32)
    assert chosen.muon_dtype == torch.float32


@pytest.mark.parametrize("amx", [False, True])
def test_a_cpu_compiles_long_runs(machine: Any, amx: bool) -> None:
    machine(amx=amx)
    chosen = resolve(TrainConfig(), **LONG)
    dtype = torch.bfloat16 if amx else torch.float32
    assert (chosen.dtype, chosen.muon_dtype, chosen.compile) == (dtype, dtype, True)
    short = resolve(TrainConfig(max_steps=5), num_parameters=10**5, tokens_per_step=100)
    assert (short.dtype, short.compile) == (dtype, False)


def test_without_a_compiler_auto_says_so_and_on_is_refused(machine: Any) -> None:
    machine(amx=True, compiler=False)
    chosen = resolve(TrainConfig(), **LONG)
    assert not chosen.compile
    assert chosen.notes == ("not compiling: no C++ compiler on the PATH",)
    with pytest.raises(ConfigError, match=r"compile: on, without a C\+\+ compiler"):
        resolve(TrainConfig(compile="on"), **LONG)


def test_a_gpu_is_taken_when_there_is_one(machine: Any) -> None:
    machine(cuda=True)
    chosen = resolve(TrainConfig(), **LONG)
    assert (chosen.device.type, chosen.dtype, chosen.compile) == ("cuda", torch.bfloat16, True)
    assert resolve(TrainConfig(device="cpu", dtype="float16"), **LONG).dtype == torch.float16


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_absent_is_refused(machine: Any, device: str) -> None:
    machine()
    with pytest.raises(ConfigError, match=f"device: {device}, which torch does not find here"):
        resolve(TrainConfig(device=device), **LONG)


@pytest.mark.parametrize(
    "how",
    [
        {"dtype": "bfloat16"},
        {"dtype": "float16"},
        pytest.param({"compile": "on"}, marks=pytest.mark.slow),
    ],
)
def test_each_way_of_computing_learns_the_same(
    how: dict, tiny_run: Path, text_file: Path, cache: Path, tmp_path: Path
) -> None:
    outcome = train(
        data=str(text_file),
        run_dir=tmp_path / "run",
        tokenizer="byte",
        model=TINY_MODEL,
        settings=TINY_SETTINGS | how,
        cache=cache,
    )
    plain, other = (
        [line["train_loss"] for line in read_metrics(run / "metrics.jsonl") if "train_loss" in line]
        for run in (tiny_run, outcome.run_dir)
    )
    # Rounding apart: bfloat16 has 8 bits of mantissa.
    assert other == pytest.approx(plain, rel=2e-2 if "dtype" in how else 1e-4)
    assert outcome.summary["dtype"] == how.get("dtype", "float32")
