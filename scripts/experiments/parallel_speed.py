"""python scripts/experiments/parallel_speed.py: training by 2 processes of 1 thread against 1 of 2 threads.

The processes of all layouts are there throughout; they take turns of a few steps each, since what else the
machine does changes by the minute. Beside tokens a second the processor time of a step is printed, which
other work changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from scripts import check_dependencies  # noqa: E402

check_dependencies()

ONE = "one process"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--layouts", nargs="+", default=["ddp", "fsdp"])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--optimizer", default="muon")
    parser.add_argument("--steps", type=int, default=2, help="of a turn")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    names = [ONE, *arguments.layouts]
    workers = {name: start(name) for name in names}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    try:
        for _ in range(arguments.turns):
            for name in names:
                turns[name].append(one_turn(workers[name]))
    finally:
        for processes in workers.values():
            for process in processes:
                process.kill()
    base = [turn["tokens"] / turn["seconds"] for turn in turns[ONE]]
    for name, own in turns.items():
        rates = [turn["tokens"] / turn["seconds"] for turn in own]
        ratio = statistics.median(b / a for a, b in zip(base, rates, strict=True))
        processor = statistics.median(turn["processor"] for turn in own) / arguments.steps
        print(
            f"{name:<12} {statistics.median(rates):>8,.0f} tokens/s  {ratio:>5.0%}  "
            f"best {max(rates):>8,.0f}  {max(rates) / max(base):>5.0%}  {processor:.3f} s of processor a step"
        )


def start(name: str) -> list[subprocess.Popen[str]]:
    """The processes of a layout."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    world = 1 if name == ONE else 2
    for rank in range(world):
        variables = {"OMP_NUM_THREADS": str(2 // world)}
        if world > 1:
            variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        process = subprocess.Popen(
            [sys.executable, *sys.argv, "--worker", name],
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
    return processes


def one_turn(processes: list[subprocess.Popen[str]]) -> dict[str, float]:
    """A turn of all processes of a layout: tokens, seconds of the slowest, processor time of all."""
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [json.loads(process.stdout.readline()) for process in processes if process.stdout]
    return {
        "tokens": answers[0]["tokens"],
        "seconds": max(answer["seconds"] for answer in answers),
        "processor": sum(answer["processor"] for answer in answers),
    }


def work(arguments: argparse.Namespace) -> None:
    """Train a turn for each line of standard input."""
    import torch

    from minilm.parallel.process_group import process_group
    from minilm.training.data_source import DataSource
    from minilm.training.resume_state import Progress
    from minilm.training.setup import new_run
    from minilm.training.signals import StopRequest
    from minilm.training.train_step import TrainStep

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with tempfile.TemporaryDirectory() as name, process_group():
        answers = os.fdopen(os.dup(1), "w")
        text = Path(name) / "text.txt"
        text.write_text("".join(f"{n * n % 9973} is a number\n" for n in range(20_000)))
        settings = {"batch_size": arguments.batch, "dtype": arguments.dtype, "compile": "off"}
        settings |= {"optimizer": arguments.optimizer, "device": "cpu"}
        if arguments.worker != ONE:
            settings["parallel"] = arguments.worker
        spec = new_run(
            arguments.preset,
            source=DataSource(str(text), (), Path(name) / "cache"),
            run_dir=Path(name) / "run",
            tokenizer="byte",
            vocab_size=None,
            model={"vocab_size": 2048, "dropout": 0.0},
            settings=settings,
            announced=False,
        )
        spec.model.train()
        spec.runtime.prepare(spec.model)
        step = TrainStep(spec, Progress(), StopRequest())
        step.run()
        step.run()
        for _ in sys.stdin:
            began, processor, tokens = (
                time.perf_counter(),
                time.process_time(),
                step.progress.tokens,
            )
            for _ in range(arguments.steps):
                step.run()
            turn = {
                "tokens": step.progress.tokens - tokens,
                "seconds": time.perf_counter() - began,
                "processor": time.process_time() - processor,
            }
            print(json.dumps(turn), file=answers, flush=True)


if __name__ == "__main__":
    main()
