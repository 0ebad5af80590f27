"""Four processes, and many faults: `make test-distributed`, some minutes long."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from minilm.runs.files import read_summary, step_of_state
from minilm.runs.logs import read_metrics
from minilm.training.evaluation import TOKENS_PER_BATCH
from minilm.training.resume_state import read_state, state_files
from minilm.training.train import finetune, train
from tests.conftest import ROOT, TINY_MODEL, make_text
from tests.parallel.processes import (
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

pytestmark = pytest.mark.distributed

LAYOUTS = ("ddp", "fsdp", "hsdp")
# Of each three rows of a matrix the last of four processes has none.
THREE_ROWS = {"model": TINY_MODEL | {"d_feed_forward": 3}, "settings": SETTINGS}
# Rows from two sources, in which attention ends at documents.
MIXED = RUNS["muon"] | {"settings": RUNS["muon"]["settings"] | {"document_attention": True}}
RUNS_OF_FOUR = RUNS | TENSOR_RUNS | {"three-rows": THREE_ROWS, "mixed": MIXED}
NAMES = ("adamw", "muon", "accumulated", "three-rows", "mixed", *TENSOR_RUNS)
# Processes of each part of the chain, and the step at which one gets a signal.
CHAIN = ((4, 6), (2, 10), (1, 14), (4, None))
CHAINED = [*itertools.product(("fsdp", "hsdp"), ("muon", "tensor-muon")), ("fsdp", "mixed")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    """Runs of four processes, LAYOUT-NAME, and of one, W1-NAME. For hsdp there are two machines of two."""
    folder = tmp_path_factory.mktemp("distributed")
    common = {"data": str(text_file), "tokenizer": "byte"}
    texts = dict.fromkeys(NAMES, common)
    texts["mixed"] = common | {"data": mixture(folder, text_file)}
    cases: list[dict[str, Any]] = []
    for layout in LAYOUTS:
        for name in NAMES:
            run = RUNS_OF_FOUR[name]
            settings = run["settings"] | layout_settings(name, layout)
            arguments = texts[name] | {"model": run["model"], "settings": settings}
            case = {"verb": "train", "arguments": arguments, "per_machine": "2"}
            cases.append(case | {"name": f"{layout}-{name}"})
            if (layout, name) in CHAINED:
                copy = f"{layout}-{name}-4"
                stop = {"signal_rank": 3, "signal_step": CHAIN[0][1], "copied_to": copy}
                cases.append(case | stop | {"name": f"{layout}-{name}-chain"})
    for name, arguments in worse(folder, text_file).items():
        cases.append({"name": f"fsdp-{name}", "verb": "finetune", "arguments": arguments})
    five = common | five_batches(folder)
    cases.append({"name": "fsdp-five", "verb": "train", "arguments": five})
    cases.append({"name": "saved", "verb": "save", "arguments": {}})
    run_cases(folder, cases, 4)
    train(**five, run_dir=folder / "W1-five", cache=folder / "cache")
    for name in NAMES:
        train(
            **texts[name],
            **RUNS_OF_FOUR[name],
            run_dir=folder / f"W1-{name}",
            cache=folder / "cache",
        )
    for name, arguments in worse(folder, text_file).items():
        finetune(**arguments, run_dir=folder / f"W1-{name}", cache=folder / "cache")
    return folder


def mixture(folder: Path, text_file: Path) -> str:
    """A text, and documents shorter than a row: a third as many rows."""
    texts = [json.dumps({"text": make_text(12)[:n]}) + "\n" for n in range(5, 85)]
    (folder / "documents.jsonl").write_text("".join(texts))
    return f"mix:{text_file}=3;{folder / 'documents.jsonl'}=1"


def five_batches(folder: Path) -> dict[str, Any]:
    """A run whose validation part fills four batches of an evaluation and begins a fifth."""
    size = 4 * TOKENS_PER_BATCH + 2000
    (folder / "five.txt").write_text(make_text(8000)[:size])
    settings = SETTINGS | {"parallel": "fsdp", "max_steps": 4, "eval_every": 4, "eval_tokens": 0}
    settings |= {"val_fraction": 1 - 1000 / size}
    return {"data": str(folder / "five.txt"), "model": TINY_MODEL, "settings": settings}


def worse(folder: Path, text_file: Path) -> dict[str, dict[str, Any]]:
    """Fine-tuning that makes a model worse: the best weights are the first, chosen by a part of the split."""
    settings = SETTINGS | {"parallel": "fsdp", "optimizer": "adamw", "learning_rate": 3.0}
    settings |= {"eval_tokens": 100, "max_steps": 10, "eval_every": 5}
    whole = {"data": str(text_file), "checkpoint": str(folder / "ddp-muon"), "settings": settings}
    return {"worse": whole, "worse-adapter": whole | {"lora_rank": 2}}


@pytest.mark.parametrize(
    ("name", "file"),
    [("worse", "model.safetensors"), ("worse-adapter", "adapter/adapter_model.safetensors")],
)
def test_the_best_weights_are_put_back_in_parts(folder: Path, name: str, file: str) -> None:
    """They are evaluated over the whole split at the end."""
    one, four = folder / f"W1-{name}", folder / f"fsdp-{name}"
    summaries = [read_summary(run) for run in (one, four)]
    for summary in summaries:
        assert (summary["best_step"], summary["steps"]) == (0, 10)
        assert summary["best_val_tokens"] > 2000
    assert abs(summaries[0]["best_val_loss"] - summaries[1]["best_val_loss"]) < 1e-5
    assert (one / file).stat().st_size == (four / file).stat().st_size
    expected, weights = load_file(one / file), load_file(four / file)
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_four_processes_learn_what_one_does(folder: Path, layout: str, name: str) -> None:
    one, four = folder / f"W1-{name}", folder / f"{layout}-{name}"
    most = 1e-5 if name.endswith("adamw") else 1e-4
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


def test_two_processes_learn_what_one_does(folder: Path, text_file: Path) -> None:
    run, common = RUNS["adamw"], {"data": str(text_file), "tokenizer": "byte"}
    cases = [
        {
            "name": f"{layout}-two",
            "verb": "train",
            "arguments": common | run | {"settings": settings},
        }
        for layout in ("ddp", "fsdp")
        for settings in (run["settings"] | {"parallel": layout},)
    ]
    run_cases(folder, cases, 2)
    of_one = losses(folder / "W1-adamw")
    for case in cases:
        torch.testing.assert_close(losses(folder / case["name"]), of_one, rtol=0, atol=1e-5)


def test_muon_ends_where_a_process_has_no_row_of_a_matrix(folder: Path) -> None:
    """Losses and weights are compared above."""
    weights = load_file(folder / "fsdp-three-rows" / "model.safetensors")
    up = weights["blocks.0.feed_forward.up.weight"]
    assert up.shape == (3, TINY_MODEL["d_model"])
    assert read_summary(folder / "fsdp-three-rows")["steps"] == SETTINGS["max_steps"]


def test_four_processes_count_each_of_five_batches_once(folder: Path) -> None:
    """Of the fifth batch all have a forward pass, and one the loss."""
    one, four = (read_summary(folder / f"{name}-five") for name in ("W1", "fsdp"))
    assert one["best_val_tokens"] == four["best_val_tokens"] > 4 * TOKENS_PER_BATCH
    assert abs(one["best_val_loss"] - four["best_val_loss"]) < 1e-5


@pytest.mark.parametrize(("layout", "parts"), [("fsdp", 4), ("hsdp", 2)])
def test_each_part_of_a_tensor_is_saved_once(folder: Path, layout: str, parts: int) -> None:
    state = state_files(folder / f"{layout}-muon-4")[0]
    assert len(list(state.rglob("shard-*"))) == 4, "every process writes"
    tensors = read_state(folder / f"{layout}-muon-4").tensors
    query = "model.blocks.0.attention.query.weight"
    assert len(tensors.described[query].parts) == parts  # type: ignore[attr-defined]


def test_four_go_on_as_two_as_one_and_as_four_again(folder: Path) -> None:
    """The same losses as of one that never stopped, each time."""
    for (before, stopped), (processes, signal_step) in itertools.pairwise(CHAIN):
        cases = []
        for layout, name in CHAINED:
            run = f"{layout}-{name}-chain"
            state = state_files(folder / run)[0]
            assert state.name.startswith(f"step-{stopped:09d}"), (before, state)
            stop = {"signal_rank": processes - 1, "signal_step": signal_step}
            case = {"name": run, "verb": "resume", "arguments": {}}
            cases.append(case | {"per_machine": "2"} | (stop if signal_step else {}))
        run_cases(folder, cases, processes)
    for layout, name in CHAINED:
        run, whole = f"{layout}-{name}-chain", folder / f"W1-{name}"
        torch.testing.assert_close(losses(folder / run), losses(whole), rtol=0, atol=1e-4)
        reasons = (folder / f"{run}.reasons").read_text().split()
        assert [r.partition(".")[0] for r in reasons].count("max_steps") == 4
        expected = load_file(whole / "model.safetensors")
        for key, tensor in load_file(folder / run / "model.safetensors").items():
            torch.testing.assert_close(tensor, expected[key], rtol=1e-2, atol=1e-3, msg=key)


def test_two_compiled_processes_drop_what_one_does(folder: Path, text_file: Path) -> None:
    settings = SETTINGS | {"max_steps": 6, "eval_every": 6}
    common = {"data": str(text_file), "tokenizer": "byte"}
    common["model"] = TINY_MODEL | {"num_layers": 1, "dropout": 0.2}
    layouts = ("ddp", "fsdp")
    cases = []
    for layout in layouts:
        arguments = common | {"settings": settings | {"compile": "on", "parallel": layout}}
        cases.append({"name": f"{layout}-compiled", "verb": "train", "arguments": arguments})
    recomputed = settings | {"compile": "on", "activation_checkpointing": True}
    plain = {"model": TINY_MODEL | {"num_layers": 1}, "settings": recomputed}
    cases.append({"name": "recomputed", "verb": "train", "arguments": common | plain})
    run_cases(folder, cases, 2)
    train(**common, settings=settings, run_dir=folder / "W1-eager", cache=folder / "cache")
    plain = common | plain | {"settings": settings}
    train(**plain, run_dir=folder / "W1-plain", cache=folder / "cache")
    plain_losses = (losses(folder / name) for name in ("recomputed", "W1-plain"))
    torch.testing.assert_close(*plain_losses, rtol=0, atol=1e-4)
    for layout in layouts:
        compiled, eager = losses(folder / f"{layout}-compiled"), losses(folder / "W1-eager")
        torch.testing.assert_close(compiled, eager, rtol=0, atol=1e-4)


KILLS = int(os.environ.get("MINILM_TEST_KILLS", "50"))
# A life is killed within so many seconds: while it imports, begins, reads, trains, saves.
LONGEST_LIFE = 16.0
TRAIN = [str(ROOT / "scripts" / "train.py"), "--tokenizer=byte"]


@contextlib.contextmanager
def started(
    command: list[str], cache: Path, cwd: Path | None = None, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """torchrun, which is ended with its processes at the end of the block."""
    process = subprocess.Popen(
        command,
        env=environment(cache) | variables,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        end(process)
        assert process.stdout
        process.stdout.close()


def test_killed_at_random_a_run_ends_in_the_same_weights(tmp_path: Path, text_file: Path) -> None:
    """Processes are killed at random moments; torchrun starts all of them again each time."""
    settings = SETTINGS | {"parallel": "fsdp", "save_every_seconds": 0.2, "max_steps": 600}
    settings |= {"eval_every": 200, "log_every": 10}
    options = ["--data", str(text_file), *command_line(ODD, settings)]
    with started(
        torchrun(*TRAIN, *options, "--run-dir", str(tmp_path / "whole")), tmp_path
    ) as process:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
    choose, kills, runs = random.Random(0), 0, 0
    while kills < KILLS:
        run, runs = tmp_path / f"killed-{runs}", runs + 1
        command = torchrun(f"--max-restarts={KILLS}", *TRAIN, *options, "--run-dir", str(run))
        with started(command, tmp_path) as process:
            lines: list[str] = []
            reader = threading.Thread(target=lambda p=process, to=lines: to.extend(p.stdout))
            reader.start()
            while kills < KILLS and process.poll() is None:
                if kill_one(process, choose):
                    kills += 1
            process.wait(600)
            reader.join()
        assert process.returncode == 0, "".join(lines)
        for name in ("model.safetensors", "resume/step-000000600.safetensors"):
            (one, other) = (load_file(each / name) for each in (tmp_path / "whole", run))
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
        # Of the lines between two saves the mean is summed in another order.
        torch.testing.assert_close(losses(run), losses(tmp_path / "whole"), rtol=0, atol=1e-5)
        left = [path.name for path in (run / "resume").iterdir()]
        assert len(left) == 2, left  # nothing of the saves that were killed
        assert all(name.endswith(".safetensors") for name in left)
    print(f"{kills} kills, {runs} runs")


def kill_one(process: subprocess.Popen[str], choose: random.Random) -> bool:
    """Wait until torchrun's processes are there, and for a random while; kill one of them."""
    deadline = time.monotonic() + 60
    while process.poll() is None:
        workers = [pid for pid in children(process.pid) if rank(pid)]
        if len(workers) == 2:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    moment = time.monotonic() + choose.uniform(0, LONGEST_LIFE)
    victim = choose.randrange(2)
    while time.monotonic() < moment and process.poll() is None:
        time.sleep(0.02)
    alive = [pid for pid in children(process.pid) if pid in workers]
    if process.poll() is not None or len(alive) < 2:
        return False  # the run ended, or is ending
    os.kill(workers[victim], signal.SIGKILL)
    while any(pid in children(process.pid) for pid in workers) and process.poll() is None:
        time.sleep(0.02)
    return True


def test_a_process_that_hangs_is_named(folder: Path, text_file: Path, tmp_path: Path) -> None:
    settings = SETTINGS | {"parallel": "fsdp", "max_steps": 100_000, "save_every_seconds": 0.5}
    options = ["--data", str(text_file), *command_line(ODD, settings), "--run-dir", str(tmp_path)]
    with started(torchrun(*TRAIN, *options), folder, MINILM_PROCESS_TIMEOUT="4") as process:
        deadline = time.monotonic() + 120
        while not any((tmp_path / "resume").glob("step-0000000[1-9]*/state.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (child,) = (pid for pid in children(process.pid) if rank(pid) == "1")
        os.kill(child, signal.SIGSTOP)
        began, errors = time.monotonic(), []
        assert process.stdout
        for line in process.stdout:
            if line.startswith("error: "):
                errors.append(line)
                seconds = time.monotonic() - began
                os.kill(child, signal.SIGKILL)  # torchrun waits half a minute before it does
        process.wait(60)
    (error,) = errors
    assert f"process 1 (pid {child} on " in error
    assert "does not answer" in error
    assert seconds < 15
    assert process.returncode != 0
    assert read_state(tmp_path).progress.step > 0


def test_a_preparation_may_take_longer_than_a_step(tmp_path: Path) -> None:
    """Every process waits for it, past the time-out of a collective, and both go on in collectives."""
    case = {"name": "prepared", "verb": "prepare", "arguments": {}}
    run_cases(tmp_path, [case], 2, MINILM_PROCESS_TIMEOUT="2")
    for number in range(2):
        note = json.loads((tmp_path / f"prepared.{number}").read_text())
        assert note["seconds"] > 2 * note["timeout"] == 4
        assert note["text"] == "prepared"
        assert note["maximum"] == [1]


def test_the_commands_of_the_page_stop_and_go_on(text_file: Path, tmp_path: Path) -> None:
    """Those under "Saved states": four processes, then two, then one."""
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    block = page.partition("### Saved states\n\n")[2].partition("\n\n")[0]
    commands = [shlex.split(line) for line in block.splitlines()]
    assert [command[0] for command in commands] == ["torchrun", "torchrun", "python"]
    run = tmp_path / "checkpoints" / "mine"
    shutil.copy(text_file, tmp_path / "my.txt")
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    settings = SETTINGS | {"save_every_seconds": 0.5, "max_steps": 1000, "eval_every": 500}
    for number, command in enumerate(commands):
        python = [sys.executable]
        launcher = [*python, "-m", "torch.distributed.run", "--standalone"]
        command = (launcher if command[0] == "torchrun" else python) + command[1:]
        if number == 0:
            command += ["--tokenizer=byte", *command_line(ODD, settings)]
        before = newest_step(run)
        with started(command, tmp_path, cwd=tmp_path) as process:
            while number < 2 and newest_step(run) < before + 10:
                assert process.poll() is None
                time.sleep(0.05)
            if number < 2:
                process.terminate()  # torchrun passes it on
            output, _ = process.communicate(timeout=300)
        if number < 2:
            assert "SIGTERM: stopping, and saving the run" in output
            assert state_files(run)[0].is_dir()
            assert newest_step(run) >= before + 10
    assert process.returncode == 0, output
    assert newest_step(run) == 1000
    assert state_files(run)[0].is_file()


def newest_step(run: Path) -> int:
    steps = [step_of_state(path.name) for path in state_files(run)]
    return max((step for step in steps if step is not None), default=0)
