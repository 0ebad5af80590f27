"""python scripts/experiments/data_loading.py RUN: batches of a run without the model, beside its training.

Reads the text of a run as `--resume` does, draws the batches of its preset for some seconds, and prints their
tokens a second beside those that the run was trained at.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import torch  # noqa: E402

from minilm.data.cache import default_cache  # noqa: E402
from minilm.runs.logs import read_metrics  # noqa: E402
from minilm.training.batch_loader import BatchLoader  # noqa: E402
from minilm.training.setup import resumed_run  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=5)
    arguments = parser.parse_args()
    spec = resumed_run(arguments.run, data=None, settings={}, cache=default_cache())
    rows, length = spec.config.batch_size, spec.model.config.context_length
    loader = BatchLoader(spec.dataset, spec.config, torch.device("cpu"))
    began, step = time.perf_counter(), 0
    while time.perf_counter() - began < arguments.seconds:
        loader.tensors(loader.arrays(step, 0, rows, length))
        step += 1
    drawn = step * rows * length / (time.perf_counter() - began)
    rates = [
        line["tokens_per_second"]
        for line in read_metrics(arguments.run / "metrics.jsonl")
        if line.get("tokens_per_second")
    ]
    trained = sorted(rates)[len(rates) // 2]
    print(
        f"batches of {rows} x {length}: {drawn:,.0f} tokens/s, trained at {trained:,.0f}: "
        f"{drawn / trained:,.0f}x"
    )


if __name__ == "__main__":
    main()
