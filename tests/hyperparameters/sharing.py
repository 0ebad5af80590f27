"""python sharing.py STUDY PHASE...: processes that share a study; what each trained, as JSON lines.

A phase is TRIALS,WORKERS,KILLS,SLEEPS: a worker whose digit is in KILLS kills itself in its first trial,
one in SLEEPS sleeps through it. After a phase a line has the states of all trials. Workers are forked from
one process, which has imported Optuna for all.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
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
            study.report(claimed, 1, claimed.parameters["x"] + 1)
            study.complete(claimed, claimed.parameters["x"], {"worker": worker})
            line = {"worker": worker, "number": claimed.number, **claimed.parameters}
            print(json.dumps(line | {"attempt": claimed.attempt}), flush=True)


def main() -> None:
    studies.POLL_SECONDS = 0.05
    path = Path(sys.argv[1])
    for phase in sys.argv[2:]:
        trials, workers, kills, sleeps = phase.split(",")
        children = []
        for worker in range(int(workers)):
            child = os.fork()
            if child == 0:
                work(path, int(trials), worker, kills, sleeps)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        connection = sqlite3.connect(path)
        states = Counter(state for (state,) in connection.execute("SELECT state FROM trials"))
        connection.close()
        print(json.dumps(states), flush=True)


if __name__ == "__main__":
    main()
