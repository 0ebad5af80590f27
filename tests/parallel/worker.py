"""What each process of tests/parallel does: every case of cases.json, one after the other, in one world."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from minilm.parallel.process_group import process_group, world
from minilm.training.train import finetune, resume, train


def main(folder: Path) -> None:
    with process_group():
        for case in json.loads((folder / "cases.json").read_text()):
            run(folder, **case)
            world().wait()


def run(
    folder: Path, name: str, verb: str, arguments: dict[str, Any], signal_rank: int | None = None
) -> None:
    """One call; with ``signal_rank`` that process gets SIGTERM at the start of its sixth step."""
    if signal_rank is not None and world().rank == signal_rank:
        from minilm.training.train_step import TrainStep

        step = TrainStep.run

        def interrupted(self: TrainStep) -> None:
            if self.progress.step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            step(self)

        TrainStep.run = interrupted  # type: ignore[method-assign]
    call = {"train": train, "resume": resume, "finetune": finetune}[verb]
    outcome = call(run_dir=folder / name, cache=folder / "cache", **arguments)  # type: ignore[operator]
    with (folder / f"{name}.reasons").open("a") as stream:
        print(outcome.stopped_because, file=stream)
    if signal_rank is not None and world().rank == signal_rank:
        TrainStep.run = step  # type: ignore[method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
