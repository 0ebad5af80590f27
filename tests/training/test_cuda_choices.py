"""What a run on CUDA measures and merges, on the CPU: on a GPU see tests/test_gpu.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from minilm.config import ModelConfig, TrainConfig
from minilm.errors import ConfigError
from minilm.model.attention import KERNELS, fused_attention, kernel_first
from minilm.training import cuda_choices, runtime
from minilm.training.cuda_choices import BY_TORCH, measured_kernel, micro_batches_at_once
from minilm.training.muon import Muon
from minilm.training.runtime import Runtime, resolve_for_run
from minilm.training.signals import StopRequest
from minilm.training.train import resume, train
from minilm.training.train_step import TrainStep
from tests.conftest import TINY_MODEL, TINY_SETTINGS

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MODEL = ModelConfig(vocab_size=65, context_length=32, num_layers=2, d_model=16, num_heads=2)


def test_the_kernels_that_are_there_are_timed_after_torchs_own_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of those of CUDA a CPU has flash alone."""
    asked: list[list[str]] = []

    def choose(question: str, ways: Any) -> str:
        assert "2 x 32 tokens, 2 heads of 8" in question
        asked.append([name for name, _ in ways])
        for _, run in ways:
            run()
        return "flash"

    monkeypatch.setattr(cuda_choices, "choose", choose)
    before = torch.get_rng_state()
    assert measured_kernel(MODEL, 2, 32, torch.float32, CPU) == "flash"
    assert torch.equal(torch.get_rng_state(), before), "random numbers of the run"
    assert asked == [[BY_TORCH, "flash"]]
    measured_kernel(replace(MODEL, dropout=0.1), 2, 32, torch.float32, CPU)
    assert asked[1] == [BY_TORCH], "which on a CPU has no dropout"


def test_a_kernel_that_computes_something_else_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    own, asked = cuda_choices._gradients, []

    def wrong(kernel: Any, *rest: Any) -> tuple[Tensor, ...]:
        gradients = own(kernel, *rest)
        if kernel == KERNELS["flash"]:
            gradients = (gradients[0], gradients[1], 1.1 * gradients[2])
        return gradients

    monkeypatch.setattr(cuda_choices, "_gradients", wrong)
    monkeypatch.setattr(
        cuda_choices, "choose", lambda _, ways: asked.extend(name for name, _ in ways) or BY_TORCH
    )
    assert measured_kernel(MODEL, 2, 32, torch.float32, CPU) == BY_TORCH
    assert asked == [BY_TORCH]


def test_attention_by_a_kernel_first_is_attention() -> None:
    query, key, value = torch.randn(3, 1, 2, 8, 4, generator=torch.Generator().manual_seed(0))
    expected = fused_attention(query, key, value, window=0, dropout=0.0)
    for name in KERNELS:  # of which a CPU has one
        with kernel_first(name):
            attended = fused_attention(query, key, value, window=0, dropout=0.0)
        torch.testing.assert_close(attended, expected)


def test_a_step_attends_by_the_kernel_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    first: list[str] = []
    monkeypatch.setattr(runtime, "kernel_first", lambda name: first.append(name) or nullcontext())
    monkeypatch.setattr(
        runtime, "without_plans", lambda device: first.append("plans") or nullcontext()
    )
    chosen = Runtime(CUDA, torch.bfloat16, False, tuned={"attention": "flash"})
    for at in (
        chosen,
        replace(chosen, tuned={"attention": BY_TORCH}),
        replace(chosen, tuned={"attention": "explicit"}),  # of a run that began on a CPU
        replace(chosen, device=CPU),
        replace(chosen, tuned={}),
    ):
        with at.attention(is_staged=False):
            pass
    assert first == ["flash"]
    with chosen.attention(is_staged=True):
        pass
    assert first == ["flash", "plans"]


@pytest.mark.parametrize("number", ["0", "-1", "x", "", "1e3", "9" * 5000, "\u0662"])
def test_a_number_that_is_none_is_one(number: str) -> None:
    tuned = {"micro_batches_at_once": number}
    assert Runtime(CUDA, torch.bfloat16, False, tuned=tuned).micro_batches_at_once == 1


def test_as_many_micro_batches_go_at_once_as_fit() -> None:
    config = TrainConfig(batch_size=8, gradient_accumulation=12)
    shape = ModelConfig(vocab_size=1024, num_layers=4, d_model=128, num_heads=4, context_length=128)
    numbers = [
        micro_batches_at_once(config, shape, 128, "bfloat16", total, total)
        for total in (10**7, 2 * 10**8, 5 * 10**8, 10**9, 10**10)
    ]
    assert numbers[0] == 1
    assert numbers[-1] == 12
    assert numbers == sorted(numbers)
    assert {12 % number for number in numbers} == {0}
    assert len(set(numbers)) > 2
    checkpointed = replace(config, activation_checkpointing=True)
    assert (
        micro_batches_at_once(checkpointed, shape, 128, "bfloat16", *[2 * 10**8] * 2) > numbers[1]
    )
    alone = replace(config, gradient_accumulation=1)
    assert micro_batches_at_once(alone, shape, 128, "bfloat16", 10**10, 10**10) == 1
    # Where another program has a tenth of the card, nothing changes; where it has most of it, that counts.
    assert micro_batches_at_once(config, shape, 128, "bfloat16", 9 * 10**8, 10**9) == numbers[3]
    assert micro_batches_at_once(config, shape, 128, "bfloat16", 10**7, 10**9) == 1


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Pretend to have one of 10 GB, whose fastest kernel is flash; what was measured."""
    measured: list[tuple[Any, ...]] = []
    monkeypatch.setattr(runtime, "choose_device", lambda _: CUDA)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10**10, 10**10))
    monkeypatch.setattr(
        runtime, "measured_kernel", lambda *question: measured.append(question) or "flash"
    )
    return measured


def test_a_long_run_measures_and_a_resumed_one_does_as_it_did(card: list[tuple[Any, ...]]) -> None:
    dataset: Any = SimpleNamespace(row_length=lambda length: length)
    long = TrainConfig(gradient_accumulation=4, max_steps=10**8, batch_size=2)
    assert resolve_for_run(long, MODEL, dataset).tuned == {
        "micro_batches_at_once": "4",
        "attention": "flash",
    }
    assert card == [(MODEL, 8, 32, torch.bfloat16, CUDA)]
    short = replace(long, max_steps=100)
    assert resolve_for_run(short, MODEL, dataset).tuned == {"micro_batches_at_once": "4"}
    assert resolve_for_run(replace(long, tune="off"), MODEL, dataset).tuned == {}
    before = {"micro_batches_at_once": "2", "attention": BY_TORCH}
    assert resolve_for_run(long, MODEL, dataset, before).tuned == before
    assert len(card) == 1


@pytest.mark.parametrize("model", [{}, {"document_attention": True}], ids=["windows", "documents"])
def test_micro_batches_at_once_train_as_one_after_the_other(
    model: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    text_file: Path,
    cache: Path,
    tmp_path: Path,
) -> None:
    """By as many passes fewer, on the same tokens; a resumed run does the same."""
    text = text_file
    if model:
        text = tmp_path / "documents.txt"
        words = text_file.read_text(encoding="utf-8")
        text.write_text("<|endoftext|>".join([words[:300]] * 20), encoding="utf-8")
    passes: list[int] = []
    own = TrainStep._backward

    def counted(step: TrainStep, parts: Tensor, *batch: Tensor) -> None:
        passes.append(len(batch[0]))
        own(step, parts, *batch)

    monkeypatch.setattr(TrainStep, "_backward", counted)
    settings = TINY_SETTINGS | {"gradient_accumulation": 6, "max_steps": 4, "batch_size": 2}
    weights, tokens = [], []
    for number in (1, 3):
        monkeypatch.setattr(Runtime, "micro_batches_at_once", number)
        folder = tmp_path / str(number)
        train(
            run_dir=folder,
            model=TINY_MODEL,
            tokenizer="byte",
            settings=settings | model,
            cache=cache,
            data=str(text),
        )
        weights.append(load_file(folder / "model.safetensors"))
        last = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        tokens.append(json.loads(last)["tokens"])
    assert passes == [2] * 24 + [6] * 8
    assert tokens[0] == tokens[1] > 0
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4)
    resume(tmp_path / "3", settings={"max_steps": 5}, cache=cache)
    assert passes[-2:] == [6, 6]


class Compiler:
    """Stands for torch.compile: counts what it is given."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.shapes = fails, []  # type: ignore[var-annotated]

    def __call__(self, function: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
        assert not dynamic

        def compiled(matrices: Tensor) -> Any:
            if self.fails:
                raise torch._dynamo.exc.InternalTorchDynamoError("no compiler here\nmore")
            self.shapes.append(tuple(matrices.shape))
            return function(matrices)

        return compiled


def optimizers() -> tuple[list[torch.nn.Parameter], list[Muon]]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 4), (8, 4), (4, 8), (4, 4), (2, 4)]
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return parameters, [Muon(parameters, lr=0.1, momentum=0.9)]


def test_muons_iteration_is_compiled_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler()
    monkeypatch.setattr(torch, "compile", compiler)
    parameters, (muon,) = optimizers()
    Runtime(CPU, torch.float32, compile=True).compile_updates([muon], StopRequest())
    Runtime(CUDA, torch.float32, compile=False).compile_updates([muon], StopRequest())
    assert not compiler.shapes
    Runtime(CUDA, torch.float32, compile=True).compile_updates([muon], StopRequest())
    sides = [(2, 4, 4), (2, 4, 8), (1, 2, 4)]
    assert sorted(compiler.shapes) == sorted(sides)
    expected, (plain,) = optimizers()
    muon.step()
    plain.step()
    assert sorted(compiler.shapes) == sorted(2 * sides)
    for one, other in zip(parameters, expected, strict=True):
        assert torch.equal(one, other)


def test_an_iteration_that_does_not_compile_runs_eagerly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "compile", Compiler(fails=True))
    parameters, (muon,) = optimizers()
    Runtime(CUDA, torch.float32, compile=True).compile_updates([muon], StopRequest())
    assert caplog.messages == ["not compiling: no compiler here"]
    expected, (plain,) = optimizers()
    muon.step()
    plain.step()
    for one, other in zip(parameters, expected, strict=True):
        assert torch.equal(one, other)
    required = Runtime(CUDA, torch.float32, compile=True, compile_required=True)
    with pytest.raises(ConfigError, match="compile: on, and it fails here"):
        required.compile_updates([muon], StopRequest())
    stopped = StopRequest()
    stopped.signum = 2
    required.compile_updates([muon], stopped)  # compilers are sent signals too


@pytest.mark.slow
def test_a_compiled_iteration_is_the_iteration() -> None:
    parameters, (muon,) = optimizers()
    muon.compile(lambda function: torch.compile(function, dynamic=False))
    expected, (plain,) = optimizers()
    muon.step()
    plain.step()
    for one, other in zip(parameters, expected, strict=True):
        torch.testing.assert_close(one, other)
