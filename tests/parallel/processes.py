"""What the tests of several processes share: the runs that they compare, and how processes are started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from minilm.runs.logs import read_metrics
from tests.conftest import ROOT, TINY_MODEL, TINY_SETTINGS, clean_environment

SETTINGS = TINY_SETTINGS | {"batch_size": 5, "max_steps": 20, "eval_every": 10, "log_every": 1}
ADAMW = {"optimizer": "adamw", "learning_rate": 0.004, "max_steps": 100, "eval_every": 50}
FEW_STEPS = {"max_steps": 10}
# Rows that processes do not share evenly, of weights and of batches.
ODD = TINY_MODEL | {"d_model": 18, "num_heads": 3, "d_feed_forward": 35, "dropout": 0.2}
RUNS: dict[str, dict[str, Any]] = {
    "adamw": {"model": ODD, "settings": SETTINGS | ADAMW},
    "muon": {"model": ODD, "settings": SETTINGS | {"gradient_clip": 0.5}},
    "accumulated": {
        "model": TINY_MODEL | {"tied_embeddings": True, "shared_layers": 1},
        "settings": SETTINGS
        | {"gradient_accumulation": 3, "l1_weight": 1e-4, "weight_decay": 0.1}
        | FEW_STEPS,
    },
    "bfloat16": {
        "model": TINY_MODEL | {"qk_norm": True, "convolution": 2, "tied_embeddings": True},
        "settings": SETTINGS
        | {"dtype": "bfloat16", "max_steps": 5, "gradient_accumulation": 2}
        | {"activation_checkpointing": True},
    },
    "float16": {
        "model": TINY_MODEL,
        "settings": SETTINGS | {"dtype": "float16", "max_steps": 5, "log_every": 5},
    },
    "recomputed": {
        "model": TINY_MODEL | {"ngram": 2, "ngram_rows": 51, "convolution": 2, "dropout": 0.1},
        "settings": SETTINGS | {"activation_checkpointing": True} | FEW_STEPS,
    },
}
# Matrices that two processes share out, each of them between two more where there are four: 17 hidden units.
HALVES = TINY_MODEL | {"d_model": 12, "d_feed_forward": 34}
TENSOR_RUNS: dict[str, dict[str, Any]] = {
    "tensor-adamw": {"model": HALVES, "settings": SETTINGS | ADAMW},
    "tensor-muon": {
        "model": HALVES
        | {"qk_norm": True, "tied_embeddings": True}
        | {"d_model": 16, "num_heads": 4, "num_kv_heads": 2},
        "settings": SETTINGS | {"gradient_clip": 0.5},
    },
}


def layout_settings(name: str, layout: str) -> dict[str, Any]:
    """What a run's settings have besides where several processes train it."""
    return {"parallel": layout} | ({"tensor_parallel": 2} if name in TENSOR_RUNS else {})


WORKER = str(ROOT / "tests" / "parallel" / "worker.py")


def torchrun(*arguments: str, processes: int = 2) -> list[str]:
    """The command that starts so many processes on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc-per-node", str(processes), *arguments]


def environment(cache: Path) -> dict[str, str]:
    return clean_environment(cache) | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run_cases(
    folder: Path, cases: Sequence[dict[str, Any]], processes: int, **variables: str
) -> None:
    """Every case of tests/parallel/worker.py in ``folder``; one process is started without torchrun."""
    (folder / "cases.json").write_text(json.dumps(cases))
    command = [WORKER, str(folder)]
    done = subprocess.run(
        torchrun(*command, processes=processes) if processes > 1 else [sys.executable, *command],
        env=environment(folder / "cache") | variables,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]


def losses(run: Path) -> torch.Tensor:
    lines = read_metrics(run / "metrics.jsonl")
    return torch.tensor([line.get("train_loss", line.get("val_loss")) for line in lines])


def command_line(model: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """The options of scripts/train.py for these fields."""
    own = ("max_steps", "eval_every", "compile", "dtype", "parallel")
    options = [f"--model.{name.replace('_', '-')}={value}" for name, value in model.items()]
    return options + [
        f"--{'' if name in own else 'train.'}{name.replace('_', '-')}={value}"
        for name, value in settings.items()
    ]


def children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:  # it ended
        return []
    return [int(text) for text in text.split()]


def rank(pid: int) -> str:
    """The RANK of a process that torchrun started; empty for another, or one that ended."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    except OSError:
        return ""
    return next((v.partition("=")[2] for v in variables if v.startswith("RANK=")), "")


def end(process: subprocess.Popen[Any]) -> None:
    """End torchrun, which ends its own, and what it left."""
    workers = children(process.pid)
    process.terminate()
    try:
        process.wait(40)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in workers:
        if rank(pid):
            os.kill(pid, 9)
