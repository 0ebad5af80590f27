"""python scripts/tools/crash.py --times 200: a run that is stopped again and again loses nothing.

A small run is trained twice: once undisturbed, once stopped at random instants, during saves too, and
resumed every time. After each stop every checkpoint on the disk is opened; at the end both runs must have
the same weights, training state, metrics and samples, byte for byte. Prints JSON; exits 1 on a difference.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm.checkpoint import load  # noqa: E402
from minilm.errors import InputError  # noqa: E402
from minilm.runs.files import step_of_state  # noqa: E402
from minilm.runs.logs import read_metrics, read_samples  # noqa: E402
from minilm.training.resume_state import read_state, state_files  # noqa: E402

# What stops a process: how, and with which exit status.
FAULTS = {
    "kill": (signal.SIGKILL, -9),
    "term": (signal.SIGTERM, 143),
    "int": (signal.SIGINT, 130),
    "full-disk": (None, 2),
}
SAVE_SECONDS = 0.02
SAVES = ("--train.save-every-seconds", str(SAVE_SECONDS))
RUN = [
    *("--tokenizer", "byte", "--device", "cpu", "--compile", "off", "--seed", "1"),
    *("--model.context-length", "16", "--model.num-layers", "2", "--model.d-model", "16"),
    *("--model.num-heads", "2", "--model.dropout", "0.1", "--model.ngram", "2"),
    *("--model.ngram-rows", "50", "--model.convolution", "1", "--train.batch-size", "4"),
    *("--train.log-every", "3", "--train.sample-tokens", "8", *SAVES),
    *("--early-stopping", "0"),
]


def main() -> int:
    """Run both and compare; 0 when nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=200, help="how often the run is stopped")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=["kill"])
    parser.add_argument("--steps", type=int, help="of the run; default: enough for all stops")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    options = parser.parse_args()
    if options.times < 1 or (options.steps is not None and options.steps < 1):
        print("error: --times, --steps: expected at least 1", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="minilm-crash-") as folder:
        result = prove(
            Path(folder),
            times=options.times,
            faults=options.faults,
            steps=options.steps or 40 * options.times + 500,
            seed=options.seed,
        )
    print(json.dumps(result, indent=2))
    stopped = result["stops"].get("stops", 0)
    if stopped < options.times:
        print(f"error: the run ended after {stopped} stops: give more --steps", file=sys.stderr)
    faults = ("differences", "unreadable", "other exits")
    return 1 if stopped < options.times or any(result[name] for name in faults) else 0


def prove(folder: Path, *, times: int, faults: list[str], steps: int, seed: int) -> dict[str, Any]:
    """What was done, and its results; the lists are empty when all is well."""
    data = folder / "data.txt"
    grammar = random.Random(0)
    data.write_text("".join(grammar.choice(["the cat ", "a dog\n", "sat. "]) for _ in range(8000)))
    settings = [
        *("--data", str(data), *RUN, "--max-steps", str(steps)),
        *("--eval-every", str(max(20, steps // 50))),
    ]
    whole, stopped = folder / "whole", folder / "stopped"
    first = _start([*settings, "--run-dir", str(whole)], folder)
    assert _finish(first) == 0, "the undisturbed run failed"

    choose, stop_counts = random.Random(seed), Counter[str]()
    unreadable: list[str] = []
    other_exits: list[str] = []
    arguments = [*settings, "--run-dir", str(stopped)]
    while stop_counts["stops"] < times:
        fault = faults[stop_counts["stops"] % len(faults)]
        process = _start(arguments, folder, _size_limit(fault, stopped, choose))
        _wait_for_training(process)
        number, expected = FAULTS[fault]
        if number is not None:
            if choose.random() < 0.9:  # one in ten comes before the first save
                # By its step, not after a time: the machine may be faster than it was, or slower.
                begun, left = _newest_step(stopped), times - stop_counts["stops"]
                most = (steps - begun) // (left + 1)
                _wait_for_step(process, stopped, begun + choose.randint(1, max(1, most)))
            time.sleep(choose.uniform(0, SAVE_SECONDS))  # within a save, or between two
            process.send_signal(number)
        status = _finish(process)
        if status == 0:
            break  # it had come to its end
        if status != expected:
            other_exits.append(f"stop {stop_counts['stops']}: {fault} ended with {status}")
        stop_counts["stops"] += 1
        stop_counts[fault] += 1
        stop_counts["in a save"] += any(stopped.rglob(".*.tmp"))
        if (stopped / "config.json").is_file():
            unreadable += _unreadable(stopped)
            arguments = ["--resume", "--run-dir", str(stopped)]
        else:
            stop_counts["before the first save"] += 1
    status = _finish(_start(arguments, folder))
    differences = [f"the last process ended with {status}"] if status else []
    differences += _differences(whole, stopped)
    return {
        "command": "python scripts/tools/crash.py "
        f"--times {times} --faults {' '.join(faults)} --steps {steps} --seed {seed}",
        "steps": steps,
        "stops": dict(stop_counts),
        "unreadable": unreadable,
        "other exits": other_exits,
        "differences": differences,
    }


def _start(arguments: list[str], folder: Path, limit: int | None = None) -> subprocess.Popen[str]:
    def restrict() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MINILM_CACHE": str(folder / "cache")},
        preexec_fn=restrict,
    )


def _size_limit(fault: str, run_dir: Path, choose: random.Random) -> int | None:
    """For a full disk: fewer bytes than a state takes, and more than the logs that are there."""
    if fault != "full-disk":
        return None
    sizes = [path.stat().st_size for path in state_files(run_dir)] or [50_000]
    logs = [path.stat().st_size for path in run_dir.glob("*.jsonl")] or [0]
    return choose.randint(min(max(logs) + 1000, sizes[0] - 1), sizes[0] - 1)


def _wait_for_training(process: subprocess.Popen[str]) -> None:
    """Until the process says what it trains, or ends."""
    assert process.stderr is not None
    for line in process.stderr:
        if " parameters, " in line:
            break


def _newest_step(run_dir: Path) -> int:
    """That of the newest training state, 0 without one."""
    newest = state_files(run_dir)[:1]
    return max((step_of_state(path.name) or 0 for path in newest), default=0)


def _wait_for_step(process: subprocess.Popen[str], run_dir: Path, step: int) -> None:
    """Until a training state of this step or a later one is on the disk, or the process ends."""
    while process.poll() is None and _newest_step(run_dir) < step:
        time.sleep(0.002)


def _finish(process: subprocess.Popen[str]) -> int:
    _, errors = process.communicate(timeout=3600)
    if "Traceback" in errors:
        print(errors, file=sys.stderr)
    return process.returncode


def _unreadable(run_dir: Path) -> list[str]:
    """Every checkpoint that cannot be opened: the weights, and each of the kept states."""
    unreadable = []
    checks = {"model.safetensors": lambda: load(run_dir)}
    for path in state_files(run_dir):
        checks[path.name] = lambda path=path: _read_alone(run_dir, path)
    for name, check in checks.items():
        try:
            check()
        except (InputError, OSError) as error:
            unreadable.append(f"{name}: {error}")
    return unreadable


def _read_alone(run_dir: Path, path: Path) -> None:
    """One state, in a folder where no older one can stand in for it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(sys.stdout):
        (Path(folder) / "resume").mkdir()
        shutil.copy(path, Path(folder) / "resume")
        read_state(Path(folder))


def _differences(whole: Path, stopped: Path) -> list[str]:
    differences = [
        f"{name} differs"
        for name in ("model.safetensors", "tokenizer.json", "config.json", "samples.jsonl")
        if (whole / name).read_bytes() != (stopped / name).read_bytes()
    ]
    logs = [
        [_without_clocks(line) for line in read_metrics(folder / "metrics.jsonl")]
        for folder in (whole, stopped)
    ]
    differences += ["metrics.jsonl differs"] * (logs[0] != logs[1])
    differences += ["no samples"] * (not read_samples(whole / "samples.jsonl"))
    states = [read_state(folder) for folder in (whole, stopped)]
    names = [set(state.tensors) for state in states]
    same = names[0] == names[1] and all(
        states[0].tensors[name].equal(states[1].tensors[name]) for name in names[0]
    )
    differences += ["the training states differ"] * (not same)
    return differences


def _without_clocks(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in CLOCKS}


CLOCKS = ("seconds", "tokens_per_second")


if __name__ == "__main__":
    sys.exit(main())
