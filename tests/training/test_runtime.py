"""Device, dtype and compilation: what 'auto' becomes, and what is refused."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from minilm.config import ModelConfig, TrainConfig
from minilm.errors import ConfigError
from minilm.model.transformer import Transformer, next_token_loss
from minilm.runs.logs import read_metrics
from minilm.training import runtime
from minilm.training.runtime import Runtime, resolve
from minilm.training.signals import Interrupted, StopRequest
from minilm.training.train import resume, train
from tests.conftest import TINY_MODEL, TINY_SETTINGS

LONG = {"flops": 1e17}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend to be a machine with these parts."""

    def pretend(*, amx: bool = False, cuda: bool = False, compiler: bool = True) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx}, raising=False)
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
    short = resolve(TrainConfig(), flops=1e9)
    assert (short.dtype, short.compile) == (dtype, False)
    assert not resolve(TrainConfig(max_seconds=60.0), **LONG).compile


def test_without_a_compiler_auto_says_so_and_on_is_refused(machine: Any) -> None:
    machine(amx=True, compiler=False)
    chosen = resolve(TrainConfig(), **LONG)
    assert not chosen.compile
    assert chosen.notes == ("not compiling: no C++ compiler on the PATH",)
    with pytest.raises(ConfigError, match=r"compile: on, without a C\+\+ compiler"):
        resolve(TrainConfig(compile="on"), **LONG)


def test_a_run_that_cannot_compile_says_so_once(
    machine: Any,
    monkeypatch: pytest.MonkeyPatch,
    text_file: Path,
    cache: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine(compiler=False)
    monkeypatch.setitem(runtime.COMPILE_FROM_FLOPS, "cpu", 0.0)
    settings = TINY_SETTINGS | {"compile": "auto", "max_steps": 1}
    options = {"tokenizer": "byte", "settings": settings, "cache": cache, "data": str(text_file)}
    train(run_dir=tmp_path / "run", model=TINY_MODEL, **options)
    assert caplog.messages.count("not compiling: no C++ compiler on the PATH") == 1
    with pytest.raises(ConfigError, match="vocab_size: 255, expected at least the tokenizer's 256"):
        train(run_dir=tmp_path / "small", model=TINY_MODEL | {"vocab_size": 255}, **options)


def test_a_cpp_compiler_is_looked_for_on_the_path_and_in_cxx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not runtime.has_cpp_compiler()
    for name in ("clang++", "my-compiler"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "my-compiler"))
    assert runtime.has_cpp_compiler()
    monkeypatch.delenv("CXX")
    assert runtime.has_cpp_compiler()
    (tmp_path / "clang++").unlink()
    assert not runtime.has_cpp_compiler()


def test_a_gpu_is_taken_when_there_is_one(machine: Any) -> None:
    machine(cuda=True)
    chosen = resolve(TrainConfig(), **LONG)
    assert (chosen.device.type, chosen.dtype, chosen.compile) == ("cuda", torch.bfloat16, True)
    assert not resolve(TrainConfig(), flops=1e14).compile
    assert resolve(TrainConfig(device="cpu", dtype="float16"), **LONG).dtype == torch.float16


def test_each_layer_is_compiled_for_itself(machine: Any) -> None:
    machine()
    flops = 2 * runtime.COMPILE_FROM_FLOPS["cpu"]
    assert resolve(TrainConfig(), flops, layers=4).compile
    assert not resolve(TrainConfig(), flops, layers=30).compile
    assert resolve(TrainConfig(), 8 * flops, layers=30).compile


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


def test_what_does_not_compile_runs_as_it_is_with_one_note(
    machine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine()

    def fails(function: Any, **how: Any) -> Any:
        def call(*arguments: Any) -> Any:
            raise torch._dynamo.exc.TorchDynamoException("g++ went missing\nand more")

        return call

    monkeypatch.setattr(torch, "compile", fails)
    loss = resolve(TrainConfig(), **LONG).compiled(
        lambda model, inputs, targets: inputs, StopRequest()
    )
    assert loss(None, 1, 2) == loss(None, 1, 2) == 1
    assert caplog.messages == ["not compiling: g++ went missing"]
    asked_for = resolve(TrainConfig(compile="on"), **LONG).compiled(lambda *_: 1, StopRequest())
    with pytest.raises(ConfigError, match=r"compile: on, and it fails here \(g\+\+ went missing"):
        asked_for(None, 1, 2)


def test_a_compiler_that_a_signal_ended_has_not_failed(
    machine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine()
    stop = StopRequest()

    def fails(function: Any, **how: Any) -> Any:
        def call(*arguments: Any) -> Any:
            stop.signum = signal.SIGINT  # a terminal sends it to g++ too
            raise torch._dynamo.exc.TorchDynamoException("g++: fatal error: Interrupt signal")

        return call

    monkeypatch.setattr(torch, "compile", fails)
    for setting in ("auto", "on"):
        stop.signum = None
        loss = resolve(TrainConfig(compile=setting), **LONG).compiled(lambda *_: 1, stop)
        with pytest.raises(Interrupted):
            loss(None, 1, 2)
    assert caplog.messages == []


def test_a_run_that_could_not_compile_goes_on_when_resumed(
    monkeypatch: pytest.MonkeyPatch,
    text_file: Path,
    cache: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(function: Any, **how: Any) -> Any:
        def call(*arguments: Any) -> Any:
            raise torch._dynamo.exc.TorchDynamoException("g++ went missing")

        return call

    monkeypatch.setattr(torch, "compile", fails)
    monkeypatch.setattr(runtime, "has_cpp_compiler", lambda: True)
    monkeypatch.setitem(runtime.COMPILE_FROM_FLOPS, "cpu", 0.0)
    folder = tmp_path / "run"
    settings = TINY_SETTINGS | {"compile": "auto", "device": "cpu"}
    train(
        data=str(text_file),
        run_dir=folder,
        tokenizer="byte",
        model=TINY_MODEL,
        settings=settings,
        cache=cache,
    )
    assert resume(folder, settings={"max_steps": 16}, cache=cache).summary["steps"] == 16
    assert caplog.messages.count("not compiling: g++ went missing") == 2


def test_activation_checkpointing_keeps_the_gradients_and_less_memory(machine: Any) -> None:
    machine()
    config = ModelConfig(**TINY_MODEL, dropout=0.2)
    tokens = torch.arange(32).reshape(2, 16)
    gradients, saved_bytes = [], []
    for checkpointing in (False, True):
        model = Transformer(config).train()
        resolve(TrainConfig(activation_checkpointing=checkpointing), **LONG).prepare(model)
        saved: dict[int, int] = {}

        def pack(tensor: torch.Tensor, saved: dict[int, int] = saved) -> torch.Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = next_token_loss(model, tokens, tokens)
        saved_bytes.append(sum(saved.values()))
        loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
        assert gradients[0].keys() == dict(model.named_parameters()).keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
    assert saved_bytes[1] < saved_bytes[0] / 2


def test_deterministic_algorithms_are_set_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: list[Any] = []
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # restored at the end
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch, "use_deterministic_algorithms", settings.append)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda precision: None)
    model = Transformer(ModelConfig(**TINY_MODEL))
    Runtime(torch.device("cuda"), torch.bfloat16, False).prepare(model)
    assert settings == []
    Runtime(torch.device("cuda"), torch.bfloat16, False, deterministic=True).prepare(model)
    assert settings == [True]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
