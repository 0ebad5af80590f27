"""python scripts/experiments/watch_cost.py: what `--train.watch` costs, as a share of its run.

Trains on one thread and adds up the processor time of all that only a run that is watched does, and of the
steps without it: a ratio within one run, which other work on the machine moves little.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

sys.path[0] = str(Path(__file__).resolve().parents[2])

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import torch  # noqa: E402

from minilm.training.loggers import Logs  # noqa: E402
from minilm.training.parameter_watch import ParameterWatch  # noqa: E402
from minilm.training.train import train  # noqa: E402
from minilm.training.train_step import TrainStep  # noqa: E402

WITHIN_STEPS = ("begin_update", "keep_gradients", "end_update")
Seconds = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--steps", type=int, default=240)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"max_steps": arguments.steps, "eval_every": arguments.steps, "sample_tokens": 0}
    settings |= {"watch": True, "save_every_seconds": 0.0, "device": "cpu"}
    methods = [(ParameterWatch, name) for name in (*WITHIN_STEPS, "beginning")]
    seconds: Seconds = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for owner, name in (*methods, (Logs, "parameters"), (TrainStep, "run")):
            stack.enter_context(timed(owner, name, seconds))
        train(
            arguments.preset, data=arguments.data, run_dir=Path(folder) / "run", settings=settings
        )
    report(seconds)


def timed(owner: type, name: str, seconds: Seconds) -> Any:
    """The class with a method that keeps the processor time of its calls."""
    method, times = getattr(owner, name), seconds.setdefault(name, [])

    def call(*arguments: Any) -> Any:
        began = time.process_time()
        result = method(*arguments)
        times.append(time.process_time() - began)
        return result

    return mock.patch.object(owner, name, call)


def report(seconds: Seconds) -> None:
    """Print the costs of a line and of a step without it, and the ratio of their sums."""
    sums = {name: sum(times) for name, times in seconds.items()}
    steps, lines = len(seconds["run"]), len(seconds["parameters"])
    without = sums.pop("run") - sum(sums[name] for name in WITHIN_STEPS)
    watching = sum(sums.values())
    print(f"{steps} steps of {1e3 * without / steps:.1f} ms of processor time each")
    print(f"{lines} lines of {1e3 * watching / lines:.1f} ms each: {watching / without:.2%}")


if __name__ == "__main__":
    main()
