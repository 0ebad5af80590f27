"""python sharing.py STUDY TRIALS WORKERS: processes that share a study; what each trained, as JSON lines.

They are forked from one process, which has imported Optuna for all. A worker whose letter is in the fourth
argument kills itself in its first trial; one in the fifth sleeps through it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import optuna.samplers
import optuna.storages  # noqa: F401  (before the fork)
import sqlalchemy.orm  # noqa: F401

from minilm.hyperparameters import study as studies

FIRST = {"x": 0.5, "n": 2}
SLEEP = 1.5


def suggest(trial: Any) -> dict[str, float]:
    return {"x": trial.suggest_float("x", 0, 1), "n": float(trial.suggest_int("n", 1, 9))}


def work(path: Path, trials: int, worker: int, kills: str, sleeps: str) -> None:
    with studies.open_study(path, {"data": "a text"}, sampler="tpe", seed=7) as study:
        first = True
        while claimed := study.claim(trials, suggest, FIRST):
            if first and f"{worker}" in kills:
                os.kill(os.getpid(), signal.SIGKILL)
            if first and f"{worker}" in sleeps:
                time.sleep(SLEEP)
            first = False
            for part in (1, 2, 3, 4):
                study.report(claimed, part, claimed.parameters["x"] + 1 / part)
            study.complete(claimed, claimed.parameters["x"], {"worker": worker})
            line = {"worker": worker, "number": claimed.number, **claimed.parameters}
            print(json.dumps(line | {"attempt": claimed.attempt}), flush=True)


def main() -> None:
    path, trials, workers, *letters = sys.argv[1:]
    kills, sleeps = (*letters, "", "")[:2]
    studies.POLL_SECONDS = 0.05
    children = []
    for worker in range(int(workers)):
        child = os.fork()
        if child == 0:
            work(Path(path), int(trials), worker, kills, sleeps)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
