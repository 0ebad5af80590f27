"""Several processes are one: the losses, weights and files of a run are those of a single process.

All runs of two processes are made by one start of torchrun: starting costs more than they do.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from minilm.runs.logs import read_metrics, read_parameters, read_samples
from minilm.training.resume_state import read_state, state_files
from minilm.training.train import finetune, resume, train
from tests.conftest import ROOT
from tests.parallel.processes import (
    FEW_STEPS,
    ODD,
    RUNS,
    SETTINGS,
    TENSOR_RUNS,
    children,
    command_line,
    end,
    environment,
    layout_settings,
    losses,
    rank,
    run_cases,
    torchrun,
)
from tests.parallel.worker import with_faults

LAYOUTS = ("ddp", "fsdp")
# Steps with shared out matrices take long: test_distributed.py has more of them, and of AdamW.
TENSOR = TENSOR_RUNS["tensor-muon"]
TENSOR = TENSOR | {"settings": TENSOR["settings"] | FEW_STEPS}
# A hundred steps of AdamW are in test_distributed.py too.
SHORTER = {"settings": RUNS["adamw"]["settings"] | {"max_steps": 30, "eval_every": 15}}
SHORT_RUNS = RUNS | {"adamw": RUNS["adamw"] | SHORTER}


def tuned(layout: str, base: Path, text_file: Path, answers: Path) -> dict[str, dict[str, Any]]:
    """Arguments of `finetune`: an adapter, and answers of one token and of thirty."""
    settings = SETTINGS | {"max_steps": 5, "eval_every": 5, "parallel": layout}
    adapter = {"data": str(text_file), "checkpoint": str(base), "lora_rank": 2}
    conversations = {"data": str(answers), "checkpoint": str(base)}
    conversations["model"] = {"context_length": 64}
    return {
        "adapter": adapter | {"settings": settings},
        "conversations": conversations | {"settings": settings | {"batch_size": 2}},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    """Runs of two processes in each layout, LAYOUT-NAME, and of one process, W1-NAME."""
    folder = tmp_path_factory.mktemp("parallel")
    answers, common = folder / "answers.jsonl", {"data": str(text_file), "tokenizer": "byte"}
    pairs = [{"prompt": f"{n}?", "completion": "y" if n % 2 else "no, " * 8} for n in range(60)]
    answers.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    cases: list[dict[str, Any]] = []
    for layout in LAYOUTS:
        for name, run in SHORT_RUNS.items():
            settings = run["settings"] | layout_settings(name, layout)
            settings |= {"watch": layout == "ddp" and name == "accumulated"}
            arguments = common | {"model": run["model"], "settings": settings}
            case = {"name": f"{layout}-{name}", "verb": "train", "arguments": arguments}
            cases.append(case | {"faults": name == "float16"})
            if name == "muon":
                stopped = {"name": f"{layout}-stopped", "verb": "train", "arguments": arguments}
                cases.append(stopped | {"signal_rank": 1, "copied_to": f"{layout}-copy"})
        base = folder / "ddp-muon"
        for name, arguments in tuned(layout, base, text_file, answers).items():
            cases.append({"name": f"{layout}-{name}", "verb": "finetune", "arguments": arguments})
        (other,) = set(LAYOUTS) - {layout}
        resumed = {"verb": "resume", "arguments": {"settings": {"parallel": other}}}
        cases.append({"name": f"{layout}-stopped"} | resumed)
    settings = TENSOR["settings"] | layout_settings("tensor-muon", "ddp")
    arguments = common | {"model": TENSOR["model"], "settings": settings}
    stopped = {"name": "tensor-stopped", "verb": "train", "arguments": arguments}
    cases.append(stopped | {"signal_rank": 1, "copied_to": "tensor-copy"})
    resumed = {"settings": {"parallel": "fsdp", "tensor_parallel": 1}}
    cases.append({"name": "tensor-stopped", "verb": "resume", "arguments": resumed})
    cases.append({"name": "saved", "verb": "save", "arguments": {}})
    for layout in LAYOUTS:  # it asserts there
        cases.append({"name": "sent", "verb": "accumulate", "arguments": {"layout": layout}})
    run_cases(folder, cases, 2)
    for name, run in (SHORT_RUNS | {"tensor-muon": TENSOR}).items():
        run = run | {"settings": run["settings"] | {"watch": name == "accumulated"}}
        notes = folder / f"W1-{name}.faults"
        with with_faults(notes) if name == "float16" else contextlib.nullcontext():
            train(**common, **run, run_dir=folder / f"W1-{name}", cache=folder / "cache")
    for name, arguments in tuned("ddp", base, text_file, answers).items():
        finetune(**arguments, run_dir=folder / f"W1-{name}", cache=folder / "cache")
    return folder


@pytest.mark.parametrize(
    ("layout", "name"),
    [*itertools.product(LAYOUTS, [*RUNS, "adapter", "conversations"])],
)
def test_the_losses_are_those_of_one_process(folder: Path, layout: str, name: str) -> None:
    one, two = folder / f"W1-{name}", folder / f"{layout}-{name}"
    # Muon's iteration enlarges what rounding does; bfloat16 has 8 bits of mantissa.
    most = {"adamw": 1e-5, "bfloat16": 0.02, "float16": 0.02}.get(name, 1e-4)
    torch.testing.assert_close(losses(two), losses(one), rtol=0, atol=most)
    for key in ("lr", "grad_norm", "tokens"):
        of_one, of_two = (
            torch.tensor([line[key] for line in read_metrics(run / "metrics.jsonl") if key in line])
            for run in (one, two)
        )
        rounding = 0.05 if name in ("bfloat16", "float16") else 1e-3
        torch.testing.assert_close(of_two, of_one, rtol=rounding, atol=1e-6)


def test_what_is_gathered_in_bfloat16_is_what_autocast_rounds(folder: Path) -> None:
    """Norms, embeddings and the sums between them are not rounded: the losses are those of whole models."""
    ddp, fsdp = (losses(folder / f"{layout}-bfloat16") for layout in LAYOUTS)
    torch.testing.assert_close(fsdp, ddp, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masters_and_moments_of_a_bfloat16_run_are_float32(folder: Path, layout: str) -> None:
    run = folder / f"{layout}-bfloat16"
    state = read_state(run).tensors
    tensors = {name: state[name] for name in state if not name.startswith("rng.")}
    moments = {name.rpartition(".")[2] for name in tensors}
    assert {"exp_avg", "exp_avg_sq", "momentum_buffer"} <= moments
    masters = load_file(run / "model.safetensors")
    assert {t.dtype for t in [*tensors.values(), *masters.values()]} == {torch.float32}
    query = masters["blocks.0.attention.query.weight"]
    assert not torch.equal(query, query.bfloat16().float()), "more than bfloat16 has"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_overflow_in_one_process_is_skipped_by_all(folder: Path, layout: str) -> None:
    """The losses are compared above: of one process, which skips the same step."""
    one, two = (
        [
            line.split()[1]
            for line in (folder / f"{name}-float16.faults").read_text().splitlines()
            if line.startswith("scale")
        ]
        for name in ("W1", layout)
    )
    assert two == 2 * one
    assert float(one[0]) == torch.amp.GradScaler("cpu").get_scale() / 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_slow_process_is_named_once(folder: Path, layout: str) -> None:
    lines = (folder / f"{layout}-float16.faults").read_text().splitlines()
    (note,) = [line for line in lines if not line.startswith("scale")]
    assert re.match(r"note: process 1 \(pid \d+ on \S+, in step \d+\) is slow, and all wait", note)
    assert re.search(r"of 0\.[3-9]\d s a step, others 0\.[01]\d s", note)
    assert "slow" not in (folder / "W1-float16.faults").read_text()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("adamw", ["model.safetensors", "resume/step-000000030.safetensors"]),
        ("muon", ["model.safetensors", "resume/step-000000020.safetensors"]),
        ("adapter", ["adapter/adapter_model.safetensors", "resume/step-000000005.safetensors"]),
    ],
)
def test_the_files_are_those_of_one_process(
    folder: Path, layout: str, name: str, files: list[str]
) -> None:
    one, two = folder / f"W1-{name}", folder / f"{layout}-{name}"
    names = [{str(path.relative_to(run)) for path in run.rglob("*")} for run in (one, two)]
    assert names[0] == names[1]
    for file in files:
        expected, tensors = load_file(one / file), load_file(two / file)
        assert tensors.keys() == expected.keys()
        for key, tensor in tensors.items():
            assert tensor.dtype == expected[key].dtype
            torch.testing.assert_close(tensor, expected[key], rtol=1e-2, atol=1e-3, msg=key)
    steps = [[line["step"] for line in read_samples(run / "samples.jsonl")] for run in (one, two)]
    assert steps[0] == steps[1]


def test_watched_parameters_are_those_of_one_process(folder: Path) -> None:
    one, two = (
        read_parameters(folder / f"{name}-accumulated" / "parameters.jsonl")
        for name in ("W1", "ddp")
    )
    assert [line["step"] for line in one] == [line["step"] for line in two] == [0, 10]
    for component, fields in one[1]["components"].items():
        for key in ("norm", "update", "gradient"):
            of_two = two[1]["components"][component][key]
            assert of_two == pytest.approx(fields[key], rel=1e-2), (component, key)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_signal_to_one_stops_all_and_the_other_layout_resumes(folder: Path, layout: str) -> None:
    stopped = folder / f"{layout}-stopped"
    assert "SIGTERM" in (folder / f"{layout}-stopped.reasons").read_text()
    assert read_state(stopped).progress.step == SETTINGS["max_steps"]
    whole = losses(folder / f"{layout}-muon")
    torch.testing.assert_close(losses(stopped), whole, rtol=0, atol=1e-4)


def test_what_shares_out_matrices_is_resumed_in_another_layout(
    folder: Path, tmp_path: Path
) -> None:
    whole, run = losses(folder / "W1-tensor-muon"), folder / "tensor-stopped"
    torch.testing.assert_close(losses(run), whole, rtol=0, atol=1e-4)
    name = "model.safetensors"
    expected, tensors = load_file(folder / "W1-tensor-muon" / name), load_file(run / name)
    assert tensors.keys() == expected.keys()
    for key, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-2, atol=1e-3, msg=key)
    copy = shutil.copytree(folder / "tensor-copy", tmp_path / "run")
    resume(copy, cache=folder / "cache")  # by one process
    torch.testing.assert_close(losses(copy), whole, rtol=0, atol=1e-4)


def test_one_process_resumes_what_several_saved(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "fsdp-copy", tmp_path / "run")
    (state, *_) = state_files(run)
    saved = read_state(run)
    assert (state.name, saved.progress.step) == ("step-000000006", 6)
    assert len(list(state.rglob("shard-*"))) == 2
    resume(run, settings={"parallel": "ddp"}, cache=folder / "cache")
    whole = losses(folder / "W1-muon")
    torch.testing.assert_close(losses(run), whole, rtol=0, atol=1e-4)
    names = {path.name for path in (run / "resume").iterdir()}
    assert names == {path.name for path in (folder / "W1-muon" / "resume").iterdir()}


@pytest.mark.distributed
def test_a_killed_process_is_started_again_and_again(folder: Path, text_file: Path) -> None:
    run = folder / "killed"
    settings = RUNS["muon"]["settings"] | {"save_every_seconds": 0.1, "parallel": "fsdp"}
    command = [str(ROOT / "scripts" / "train.py"), "--data", str(text_file), "--tokenizer=byte"]
    options = [*command_line(ODD, settings), "--run-dir", str(run)]
    log = folder / "killed.log"

    def is_new() -> bool:
        return any((run / "resume").glob("step-0000000[1-9]*/state.json"))

    def is_resumed() -> bool:
        return "resuming after step" in log.read_text()

    with log.open("w") as stream:
        process = subprocess.Popen(
            torchrun("--max-restarts", "2", *command, *options),
            env=environment(folder / "cache"),
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )
    killed = []
    try:
        deadline = time.monotonic() + 120
        for has_begun in (is_new, is_resumed):
            while not has_begun():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            (child,) = (pid for pid in children(process.pid) if rank(pid) == "1")
            os.kill(child, signal.SIGKILL)
            killed.append(child)
        output, _ = process.communicate(timeout=120)
    finally:
        end(process)
    errors = log.read_text()
    assert process.returncode == 0, errors
    # torchrun ends the other by SIGTERM meanwhile: it says nonetheless what it ends of.
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(said) == len(killed), errors
    for pid, error in zip(killed, said, strict=True):
        assert f"process 1 (pid {pid} on " in error
        assert " ended, expected all of them; the run is as last saved, if it was: " in error
    assert output.count("every parameter") == 1, "one process prints"
    assert (run / "model.safetensors").read_bytes() == (
        folder / "fsdp-muon" / "model.safetensors"
    ).read_bytes()
