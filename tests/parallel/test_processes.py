"""Several processes are one: the losses, weights and files of a run are those of a single process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from minilm.runs.logs import read_metrics, read_samples
from minilm.training.resume_state import read_state
from minilm.training.train import finetune, train
from tests.conftest import ROOT, TINY_MODEL, TINY_SETTINGS, clean_environment

SETTINGS = TINY_SETTINGS | {"batch_size": 5, "max_steps": 20, "eval_every": 10, "log_every": 1}
ADAMW = {"optimizer": "adamw", "learning_rate": 0.004}
# Rows that two processes do not share evenly, of weights and of batches.
ODD = TINY_MODEL | {"d_model": 18, "num_heads": 3, "d_feed_forward": 35, "dropout": 0.2}
RUNS: dict[str, dict[str, Any]] = {
    "adamw": {"model": ODD, "settings": SETTINGS | ADAMW | {"max_steps": 100}},
    "muon": {"model": ODD, "settings": SETTINGS | {"gradient_clip": 0.5}},
    "accumulated": {
        "model": TINY_MODEL | {"tied_embeddings": True, "shared_layers": 1},
        "settings": SETTINGS | {"gradient_accumulation": 3, "l1_weight": 1e-4, "weight_decay": 0.1},
    },
    "recomputed": {
        "model": TINY_MODEL | {"ngram": 2, "ngram_rows": 51, "convolution": 2, "dropout": 0.1},
        "settings": SETTINGS | {"activation_checkpointing": True},
    },
}
LAYOUTS = ("ddp", "fsdp")


def processes(count: int, script: Path, *arguments: str, **options: Any) -> list[str]:
    """The command that starts so many."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc-per-node", str(count), str(script), *arguments]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    """What two processes leave of every run in every layout, and one process of each run, in W1."""
    folder = tmp_path_factory.mktemp("parallel")
    cases: list[dict[str, Any]] = []
    common = {"data": str(text_file), "tokenizer": "byte"}
    for layout in LAYOUTS:
        for name, run in RUNS.items():
            settings = run["settings"] | {"parallel": layout}
            arguments = common | {"model": run["model"], "settings": settings}
            cases.append({"name": f"{layout}-{name}", "verb": "train", "arguments": arguments})
        base = str(folder / f"{layout}-muon")
        adapter = {"data": str(text_file), "checkpoint": base, "lora_rank": 2}
        adapter["settings"] = SETTINGS | {"parallel": layout}
        cases.append({"name": f"{layout}-adapter", "verb": "finetune", "arguments": adapter})
        arguments = common | RUNS["muon"]
        arguments["settings"] = arguments["settings"] | {"parallel": layout}
        stopped = {"name": f"{layout}-stopped", "verb": "train", "arguments": arguments}
        cases.append(stopped | {"signal_rank": 1})
        resumed = {"verb": "resume", "arguments": {"settings": {"parallel": LAYOUTS[::-1][LAYOUTS.index(layout)]}}}
        cases.append({"name": f"{layout}-stopped"} | resumed)
    (folder / "cases.json").write_text(json.dumps(cases))
    environment = clean_environment(folder / "cache") | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        processes(2, ROOT / "tests" / "parallel" / "worker.py", str(folder)),
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, run in RUNS.items():
        train(**common, **run, run_dir=folder / f"W1-{name}", cache=folder / "cache")
    return folder


def losses(run: Path) -> list[float]:
    return [line.get("train_loss", line.get("val_loss")) for line in read_metrics(run / "metrics.jsonl")]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", RUNS)
def test_the_losses_are_those_of_one_process(folder: Path, layout: str, name: str) -> None:
    one, two = folder / f"W1-{name}", folder / f"{layout}-{name}"
    torch.testing.assert_close(
        torch.tensor(losses(two)), torch.tensor(losses(one)), rtol=0, atol=1e-5 if name == "adamw" else 1e-4
    )
    for key in ("lr", "grad_norm"):
        values = [
            torch.tensor([line[key] for line in read_metrics(run / "metrics.jsonl") if key in line])
            for run in (one, two)
        ]
        torch.testing.assert_close(values[1], values[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_files_are_those_of_one_process(folder: Path, layout: str) -> None:
    one, two = folder / "W1-adamw", folder / f"{layout}-adamw"
    names = [{str(path.relative_to(run)) for path in run.rglob("*")} for run in (one, two)]
    assert names[0] == names[1]
    for name in ("model.safetensors", "resume/step-000000100.safetensors"):
        expected, tensors = load_file(one / name), load_file(two / name)
        assert tensors.keys() == expected.keys()
        for key, tensor in tensors.items():
            assert tensor.dtype == expected[key].dtype
            torch.testing.assert_close(tensor, expected[key], rtol=1e-3, atol=1e-4, msg=key)
    samples = [read_samples(run / "samples.jsonl") for run in (one, two)]
    assert [line["step"] for line in samples[0]] == [line["step"] for line in samples[1]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_adapter_is_that_of_one_process(folder: Path, layout: str, text_file: Path) -> None:
    one = folder / f"W1-adapter-{layout}"
    base = folder / f"{layout}-muon"
    finetune(
        base,
        data=str(text_file),
        run_dir=one,
        lora_rank=2,
        settings=SETTINGS,
        cache=folder / "cache",
    )
    two = folder / f"{layout}-adapter"
    torch.testing.assert_close(
        torch.tensor(losses(two)), torch.tensor(losses(one)), rtol=0, atol=1e-4
    )
    name = "adapter/adapter_model.safetensors"
    assert {k: v.shape for k, v in load_file(one / name).items()} == {
        k: v.shape for k, v in load_file(two / name).items()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_signal_to_one_stops_all_after_the_same_step_and_the_other_layout_resumes(
    folder: Path, layout: str
) -> None:
    stopped = folder / f"{layout}-stopped"
    assert read_state(stopped).progress.step == SETTINGS["max_steps"]
    states = {path.name for path in (stopped / "resume").iterdir()}
    whole = torch.tensor(losses(folder / f"{layout}-muon"))
    torch.testing.assert_close(torch.tensor(losses(stopped)), whole, rtol=0, atol=1e-4)
    assert states
