"""nanoGPT as the peer of bench.py train: a copy of a checkout, prepared by its own script and run as it is.

Its run is ended where its training loop ends; the loss over the whole validation split is computed after
that, in the same process, so that it costs the run nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks.process import run

# The run that its README gives for a CPU.
README_STEPS = 2000
README = (
    "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12 "
    f"--n_layer=4 --n_head=4 --n_embd=128 --max_iters={README_STEPS} --lr_decay_iters={README_STEPS} "
    "--dropout=0.0"
)
STEPS_LEFT_OUT = 0.3  # share of the steps that warm up

DRIVER = """
import runpy, sys
sys.argv = ["train.py", "config/train_shakespeare_char.py", *sys.argv[1:]]
names = runpy.run_path("train.py")
print("bench: trained", flush=True)
print("bench: parameters", sum(p.numel() for p in names["raw_model"].parameters()), flush=True)
import numpy as np, torch
model, length, device = names["raw_model"].eval(), names["block_size"], names["device"]
data = torch.from_numpy(np.fromfile(names["data_dir"] + "/val.bin", dtype=np.uint16).astype(np.int64))
total, rows = 0.0, max(1, 8192 // length)
with torch.no_grad(), names["ctx"]:
    whole = (len(data) - 1) // length * length
    for begin in range(0, whole, rows * length):
        end = min(begin + rows * length, whole)
        x = data[begin:end].reshape(-1, length).to(device)
        y = data[begin + 1 : end + 1].reshape(-1, length).to(device)
        total += model(x, y)[1].item() * x.numel()
    if whole < len(data) - 1:
        x, y = data[None, whole:-1].to(device), data[None, whole + 1 :].to(device)
        total += model(x, y)[1].item() * x.numel()
print("bench: loss", total / (len(data) - 1), flush=True)
"""


@dataclass(frozen=True)
class PeerRun:
    """``seconds`` to the end of training, start-up included; ``loss`` over the whole validation split;
    ``curve``: its own estimates of it as (seconds, loss); ``rate`` in tokens a second.
    """

    seconds: float
    loss: float
    curve: tuple[tuple[float, float], ...]
    rate: float
    parameters: int


def prepare(peer: Path, data: Path, folder: Path) -> Path:
    """A copy of the checkout with its own preparation run on ``data``.

    Its dataset `plain` has the same tokens and no meta.pkl, which makes the model as wide as GPT-2's
    vocabulary.
    """
    copy = folder / "peer"
    shutil.copytree(peer, copy, ignore=shutil.ignore_patterns(".git", "assets"))
    prepared = copy / "data" / "shakespeare_char"
    shutil.copy(data, prepared / "input.txt")
    # prepare.py imports requests for a download that the file above makes needless.
    stand_in = folder / "stand-in"
    stand_in.mkdir()
    (stand_in / "requests.py").write_text("")
    subprocess.run(
        [sys.executable, "prepare.py"],
        cwd=prepared,
        env=os.environ | {"PYTHONPATH": str(stand_in)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    plain = copy / "data" / "plain"
    shutil.copytree(prepared, plain, ignore=shutil.ignore_patterns("meta.pkl"))
    return copy


def train(copy: Path, flags: str, tokens_per_step: int) -> PeerRun:
    """Its train.py with these flags over config/train_shakespeare_char.py."""
    command = [sys.executable, "-u", "-W", "ignore", "-c", DRIVER, *flags.split()]
    done = run(command, cwd=copy)
    if done.status:
        raise SystemExit(f"error: nanoGPT: exit {done.status}\n{done.errors[-2000:]}")
    trained, loss, parameters, curve, rates = 0.0, float("nan"), 0, [], []
    for seconds, line in done.lines:
        if line.startswith("bench: trained"):
            trained = seconds
        elif line.startswith("bench: loss"):
            loss = float(line.split()[-1])
        elif line.startswith("bench: parameters"):
            parameters = int(line.split()[-1])
        elif evaluated := re.match(r"step \d+: train loss [\d.]+, val loss ([\d.]+)", line):
            curve.append((seconds, float(evaluated[1])))
        elif step := re.search(r"time ([\d.]+)ms", line):
            rates.append(1000 * tokens_per_step / float(step[1]))
    return PeerRun(trained, loss, tuple(curve), steady(rates), parameters)


def steady(rates: list[float]) -> float:
    """The median rate after the first steps."""
    return statistics.median(rates[int(len(rates) * STEPS_LEFT_OUT) :])
