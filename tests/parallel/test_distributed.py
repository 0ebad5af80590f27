"""Four processes, and many faults: `make test-distributed`, some minutes long."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from minilm.runs.logs import read_metrics
from minilm.training.resume_state import read_state, state_files
from minilm.training.train import train
from tests.conftest import ROOT
from tests.parallel.processes import (
    ADAMW,
    ODD,
    RUNS,
    SETTINGS,
    children,
    command_line,
    end,
    environment,
    losses,
    rank,
    run_cases,
    torchrun,
)

pytestmark = pytest.mark.distributed

LAYOUTS = ("ddp", "fsdp", "hsdp")
NAMES = ("adamw", "muon", "accumulated")
# Processes of each part of the chain, and the step at which one gets a signal.
CHAIN = ((4, 6), (2, 10), (1, 14), (4, None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    """Runs of four processes, LAYOUT-NAME, and of one, W1-NAME. For hsdp there are two machines of two."""
    folder = tmp_path_factory.mktemp("distributed")
    common = {"data": str(text_file), "tokenizer": "byte"}
    cases: list[dict[str, Any]] = []
    for layout in LAYOUTS:
        for name in NAMES:
            settings = RUNS[name]["settings"] | {"parallel": layout}
            arguments = common | {"model": RUNS[name]["model"], "settings": settings}
            case = {"verb": "train", "arguments": arguments, "per_machine": "2"}
            cases.append(case | {"name": f"{layout}-{name}"})
            if name == "muon" and layout != "ddp":
                stop = {"signal_rank": 3, "signal_step": CHAIN[0][1], "copied_to": f"{layout}-4"}
                cases.append(case | stop | {"name": f"{layout}-chain"})
    cases.append({"name": "saved", "verb": "save", "arguments": {}})
    run_cases(folder, cases, 4)
    for name in NAMES:
        train(**common, **RUNS[name], run_dir=folder / f"W1-{name}", cache=folder / "cache")
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_four_processes_learn_what_one_does(folder: Path, layout: str, name: str) -> None:
    one, four = folder / f"W1-{name}", folder / f"{layout}-{name}"
    most = 1e-5 if name == "adamw" else 1e-4
    torch.testing.assert_close(losses(four), losses(one), rtol=0, atol=most)
    for key in ("lr", "grad_norm", "tokens"):
        of_one, of_four = (
            torch.tensor([line[key] for line in read_metrics(run / "metrics.jsonl") if key in line])
            for run in (one, four)
        )
        torch.testing.assert_close(of_four, of_one, rtol=1e-3, atol=1e-6)
    expected, weights = (load_file(run / "model.safetensors") for run in (one, four))
    assert weights.keys() == expected.keys()
    for key, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-2, atol=1e-3, msg=key)


@pytest.mark.parametrize(("layout", "parts"), [("fsdp", 4), ("hsdp", 2)])
def test_each_part_of_a_tensor_is_saved_once(folder: Path, layout: str, parts: int) -> None:
    state = state_files(folder / f"{layout}-4")[0]
    assert len(list(state.rglob("shard-*"))) == 4, "every process writes"
    tensors = read_state(folder / f"{layout}-4").tensors
    query = "model.blocks.0.attention.query.weight"
    assert len(tensors.described[query].parts) == parts  # type: ignore[attr-defined]


def test_four_go_on_as_two_as_one_and_as_four_again(folder: Path) -> None:
    """The same losses as of one that never stopped, each time."""
    layouts = LAYOUTS[1:]
    for (before, stopped), (processes, signal_step) in zip(CHAIN[:-1], CHAIN[1:], strict=True):
        cases = []
        for layout in layouts:
            state = state_files(folder / f"{layout}-chain")[0]
            assert state.name.startswith(f"step-{stopped:09d}"), (before, state)
            stop = {"signal_rank": processes - 1, "signal_step": signal_step}
            case = {"name": f"{layout}-chain", "verb": "resume", "arguments": {}}
            cases.append(case | {"per_machine": "2"} | (stop if signal_step else {}))
        run_cases(folder, cases, processes)
    for layout in layouts:
        run = folder / f"{layout}-chain"
        torch.testing.assert_close(losses(run), losses(folder / "W1-muon"), rtol=0, atol=1e-4)
        reasons = (folder / f"{layout}-chain.reasons").read_text().split()
        assert [r.partition(".")[0] for r in reasons].count("max_steps") == 4
        expected = load_file(folder / "W1-muon" / "model.safetensors")
        for key, tensor in load_file(run / "model.safetensors").items():
            torch.testing.assert_close(tensor, expected[key], rtol=1e-2, atol=1e-3, msg=key)
