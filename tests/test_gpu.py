"""What trains and generates on CUDA: the same commands on the CPU and, where there is one, on a GPU.

The tests on a GPU are marked `gpu` and skipped where there is none; `scripts/tools/gpu.sh correct` runs them.
Those on the CPU show that the tests themselves are right.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minilm.cli import generate, inspect, train
from tests.conftest import ROOT, clean_environment

GPU = pytest.mark.gpu
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]
MODEL = {"context-length": 32, "num-layers": 2, "d-model": 32, "num-heads": 2}


@pytest.fixture(scope="module", autouse=True)
def one_thread(cache: Path) -> Iterator[None]:
    """In the processes that are started too: a model so small is slower with more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILM_CACHE", str(cache))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


def arguments(text: Path, run_dir: Path, device: str, **options: Any) -> list[str]:
    """The options of a small run; ``options`` are fields of TrainConfig."""
    model = [part for name, size in MODEL.items() for part in (f"--model.{name}", str(size))]
    fields = {
        "batch_size": 4,
        "max_steps": 24,
        "eval_every": 8,
        "log_every": 8,
        "sample_tokens": 8,
        "device": device,
        "dtype": "float32",
        "compile": "off",
        "deterministic": "true",
    }
    training = [
        part
        for name, value in (fields | options).items()
        for part in (f"--train.{name.replace('_', '-')}", str(value))
    ]
    return [
        "--data",
        str(text),
        "--run-dir",
        str(run_dir),
        "--tokenizer",
        "byte",
        *model,
        *training,
    ]


def best_loss(run_dir: Path) -> float:
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    return float(summary["best_val_loss"])


@pytest.fixture(scope="module")
def cpu_run(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    """A run that was trained on the CPU."""
    folder = tmp_path_factory.mktemp("gpu") / "run"
    assert train.main(arguments(text_file, folder, "cpu")) == 0
    return folder


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_that_was_killed_ends_in_the_bytes_of_one_that_was_not(
    device: str, text_file: Path, tmp_path: Path, cache: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train.main(arguments(text_file, whole, device)) == 0
    command = [sys.executable, str(ROOT / "scripts" / "train.py")]
    process = subprocess.Popen(
        [*command, *arguments(text_file, killed, device)],
        env=clean_environment(cache),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 100
    while process.poll() is None and not (killed / "config.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert train.main(["--resume", "--run-dir", str(killed)]) == 0
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert inspect.main([str(killed), "--json", os.devnull]) == 0


@pytest.mark.parametrize(
    ("device", "options"),
    [
        ("cpu", {"dtype": "bfloat16", "activation_checkpointing": "true"}),
        pytest.param("cuda", {}, marks=GPU),
        pytest.param("cuda", {"dtype": "bfloat16"}, marks=GPU),
        pytest.param("cuda", {"dtype": "float16"}, marks=GPU),
        pytest.param("cuda", {"deterministic": "false"}, marks=GPU),
        pytest.param("cuda", {"activation_checkpointing": "true"}, marks=GPU),
        pytest.param("cuda", {"compile": "on"}, marks=GPU),
        pytest.param("cuda", {"compile": "on", "dtype": "bfloat16"}, marks=GPU),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or "plain",
)
def test_however_a_step_is_computed_the_loss_is_that_of_the_cpu(
    device: str, options: dict[str, str], text_file: Path, tmp_path: Path, cpu_run: Path
) -> None:
    folder = tmp_path / "run"
    assert train.main(arguments(text_file, folder, device, **options)) == 0
    assert best_loss(folder) == pytest.approx(best_loss(cpu_run), rel=0.03)


@GPU
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "adamw", "gradient_clip": 1.0, "warmup_steps": 8},
        {"gradient_accumulation": 3, "initial_context_length": 8, "l1_weight": 1e-5},
        {"compile": "on", "dtype": "bfloat16"},
    ],
    ids="-".join,
)
def test_a_captured_step_computes_what_an_eager_one_does(
    options: dict[str, Any], text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = []
    for graphs in ("true", "false"):
        run = arguments(text_file, tmp_path / graphs, "cuda", cuda_graphs=graphs, **options)
        assert train.main([*run, "--model.dropout", "0.2"]) == 0
        weights.append((tmp_path / graphs / "model.safetensors").read_bytes())
    assert "without CUDA graphs" not in capsys.readouterr().err
    assert weights[0] == weights[1]


@GPU
@pytest.mark.parametrize("window", [0, 8])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_kernel_of_attention_is_chosen_by_measurement(window: int, dropout: float) -> None:
    """Each that is taken computes what products written out do."""
    import torch

    from minilm.config import ModelConfig
    from minilm.model.attention import KERNELS
    from minilm.training.cuda_choices import BY_TORCH, _is_right, measured_kernel

    shape = {"num_layers": 1, "d_model": 256, "num_heads": 4, "context_length": 256}
    model = ModelConfig(vocab_size=64, sliding_window=window, dropout=dropout, **shape)
    device = torch.device("cuda")
    right = [name for name in KERNELS if _is_right(name, model, 256, torch.bfloat16, device)]
    assert right
    chosen = measured_kernel(model, 8, 256, torch.bfloat16, device)
    assert chosen in (BY_TORCH, *right)


@GPU
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loss_in_chunks_is_that_of_all_at_once(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a head whose rows are padded, by deterministic algorithms."""
    import torch

    from minilm.config import ModelConfig, loss_chunks
    from minilm.model.transformer import Transformer, next_token_loss

    shape = {"num_layers": 1, "d_model": 32, "num_heads": 2, "context_length": 64}
    model = Transformer(ModelConfig(vocab_size=1001, **shape)).cuda()
    tokens = torch.arange(640, device="cuda").view(10, 64)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    results = []
    for limit in (2**28, 2**18):
        monkeypatch.setattr(loss_chunks, "LOGITS_PER_CHUNK_ON_CUDA", limit)
        torch.use_deterministic_algorithms(True)
        try:
            with torch.autocast("cuda", getattr(torch, dtype), enabled=dtype != "float32"):
                loss = next_token_loss(model, tokens, tokens)
            loss.backward()
        finally:
            torch.use_deterministic_algorithms(False)
        results.append((loss.detach(), *(p.grad for p in model.parameters())))
        model.zero_grad()
    bound = 1e-3 if dtype == "float32" else 3e-2
    for one, other in zip(*results, strict=True):
        assert (one - other).norm() <= bound * one.norm() + 1e-6


@GPU
def test_micro_batches_at_once_have_the_loss_of_the_cpu(text_file: Path, tmp_path: Path) -> None:
    losses = []
    for device, tune in (("cpu", "off"), ("cuda", "off"), ("cuda", "auto")):
        folder = tmp_path / (device + tune)
        run = arguments(text_file, folder, device, gradient_accumulation=4, tune=tune)
        assert train.main(run) == 0
        losses.append(best_loss(folder))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["tuned"] == {"micro_batches_at_once": "4"}
    assert losses == pytest.approx(losses[:1] * 3, rel=0.03)


def greedy(run_dir: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[list[int]]:
    """The tokens after two prompts."""
    capsys.readouterr()
    prompts = ["--prompt", "the cat ", "--prompt", "a crow "]
    fixed = ["--temperature", "0", "--max-new-tokens", "40", "--json", "--dtype", "float32"]
    assert generate.main([str(run_dir), *prompts, *fixed, *options]) == 0
    return [json.loads(line)["tokens"] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "options", [["--no-cache"], [], pytest.param(["--compile", "on"], marks=GPU)], ids=str
)
def test_the_greedy_text_is_that_of_the_cpu(
    device: str, options: list[str], cpu_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = greedy(cpu_run, capsys, "--device", "cpu")
    assert len(expected) == 2
    assert greedy(cpu_run, capsys, "--device", device, *options) == expected


@GPU
def test_out_of_memory_is_one_line_and_leaves_no_run(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    torch.cuda.set_per_process_memory_fraction(0.01)
    try:
        options = arguments(text_file, tmp_path / "run", "cuda", batch_size=2**17)
        assert train.main(options) == 2
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: GPU memory: not enough of it")
    assert "--train.batch-size" in last
    assert not (tmp_path / "run").exists()
