"""nanochat's recipe as a peer: its model and optimizer from a checkout, on tokens of minilm, scaled down.

Its own script downloads its text and trains its tokenizer. A loop of the same schedule takes its place: what
`scripts/base_train.py` does with a batch of so many tokens (learning rates by its root, decay by that and the
horizon, warm-up, warm-down, Muon's momentum). In bfloat16, on a CPU.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.benchmarks.process import run

# The shape of `nano`, in heads as wide as nanochat's run for a CPU has them.
SHAPE = {"n_layer": 4, "n_head": 2, "n_kv_head": 2, "n_embd": 128}
ROWS = 8  # of a micro-batch
# Tokens a step that are tried; nanochat's run for a CPU has the last.
BATCHES = (1024, 4096, 16384)
TIMED_SECONDS = 6.0

DRIVER = """
import json, math, sys, time
import numpy as np, torch
from nanochat.gpt import GPT, GPTConfig
given = json.loads(sys.argv[1])
tokens, length, rows = given["batch"], given["length"], given["rows"]
def config(**more):
    return GPTConfig(sequence_len=length, vocab_size=given["vocabulary"], window_pattern="L", **more)
def made(of):
    with torch.device("meta"):
        return GPT(of)
def scaling(model):
    counts = model.num_scaling_params()
    return counts["transformer_matrices"] + counts["lm_head"]
torch.manual_seed(42)
model = made(config(**given["shape"]))
model.to_empty(device="cpu")
model.init_weights()
reference = scaling(made(config(n_layer=12, n_head=6, n_kv_head=6, n_embd=768)))
ratio = tokens / 2**19
rate, horizon = ratio**0.5, reference / scaling(model)
decay = 0.28 * rate * horizon
optimizer = model.setup_optimizer(
    unembedding_lr=0.008 * rate, embedding_lr=0.3 * rate, scalar_lr=0.5 * rate,
    matrix_lr=0.02 * rate, weight_decay=decay,
)
data = torch.from_numpy(np.load(given["train"]))
generator = torch.Generator().manual_seed(0)
micro = tokens // (rows * length)
def step(number, steps):
    warm, down = min(40, steps // 10 or 1), round(0.65 * steps)
    if number < warm:
        factor = (number + 1) / warm
    elif number <= steps - down:
        factor = 1.0
    else:
        left = (steps - number) / down
        factor = left + (1 - left) * 0.05
    if number < 400:
        momentum = 0.85 + 0.12 * number / 400
    elif number >= steps - down:
        momentum = 0.97 - 0.07 * (number - (steps - down)) / down
    else:
        momentum = 0.97
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
        if group["kind"] == "muon":
            group["momentum"] = momentum
            group["weight_decay"] = decay * 0.5 * (1 + math.cos(math.pi * number / steps))
    for _ in range(micro):
        starts = torch.randint(len(data) - length, (rows,), generator=generator)
        both = data[starts[:, None] + torch.arange(length + 1)]
        (model(both[:, :-1].contiguous(), both[:, 1:].contiguous()) / micro).backward()
    optimizer.step()
    model.zero_grad(set_to_none=True)
began = time.perf_counter()
step(0, 1000)  # its optimizer is compiled in it
print("bench: first", time.perf_counter() - began, flush=True)
times, number, steps = [], 1, given["steps"] or 10**6
while number < steps:
    began = time.perf_counter()
    step(number, steps)
    times.append(time.perf_counter() - began)
    number += 1
    if not given["steps"] and sum(times) > given["timed"]:
        break
print("bench: step", sorted(times)[len(times) // 2], "trained", sum(times), flush=True)
print("bench: parameters", sum(p.numel() for p in model.parameters()), flush=True)
if given["steps"]:
    val, total = torch.from_numpy(np.load(given["val"])), 0.0
    model.eval()
    with torch.no_grad():
        for begin in range(0, len(val) - 1, length):
            x, y = val[None, begin : begin + length], val[None, begin + 1 : begin + 1 + length]
            if y.shape[1] > 1:
                x = x[:, : y.shape[1]].contiguous()
                total += model(x, y.contiguous()).item() * y.shape[1]
    print("bench: loss", total / (len(val) - 1), flush=True)
"""


@dataclass(frozen=True)
class Tokens:
    """The tokens of both parts as files of numpy, and the size of their vocabulary."""

    train: Path
    val: Path
    vocabulary: int
    length: int


def write_tokens(
    train: Sequence[int], val: Sequence[int], vocabulary: int, length: int, folder: Path
) -> Tokens:
    """The tokens as the driver reads them."""
    paths = folder / "train.npy", folder / "val.npy"
    for path, part in zip(paths, (train, val), strict=True):
        np.save(path, np.asarray(part).astype(np.int64))
    return Tokens(*paths, vocabulary, length)


def best(peer: Path, tokens: Tokens, seconds: float) -> dict[str, Any]:
    """The best of `BATCHES` in ``seconds`` of training alone: its start and its compiler are not counted."""
    runs = []
    for batch in BATCHES:
        timed = _run(peer, tokens, batch, 0)
        done = _run(peer, tokens, batch, max(2, int(seconds / timed["step"])))
        runs.append(done | {"batch": batch})
        print(f"nanochat: {done['trained']:.1f} s, loss {done['loss']:.4f}", file=sys.stderr)
    return min(runs, key=lambda each: float(each["loss"])) | {"tried": runs}


def _run(peer: Path, tokens: Tokens, batch: int, steps: int) -> dict[str, float]:
    given = {
        "batch": batch,
        "steps": steps,
        "shape": SHAPE,
        "rows": ROWS,
        "length": tokens.length,
        "vocabulary": tokens.vocabulary,
        "train": str(tokens.train),
        "val": str(tokens.val),
        "timed": TIMED_SECONDS,
    }
    command = [sys.executable, "-u", "-W", "ignore", "-c", DRIVER, json.dumps(given)]
    environment = {"NANOCHAT_DTYPE": "bfloat16", "PYTHONPATH": str(peer)}
    done = run(command, cwd=peer, environment=environment)
    if done.status:
        raise SystemExit(f"error: nanochat: exit {done.status}\n{done.errors[-2000:]}")
    values: dict[str, float] = {"steps": steps, "tokens": steps * batch}
    for _, line in done.lines:
        words = line.split()
        if words[:1] == ["bench:"]:
            values |= {name: float(x) for name, x in zip(words[1::2], words[2::2], strict=True)}
    return values
