"""bench.py train --only gpu: on one CUDA card, stage by stage; elsewhere it says so."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scripts.benchmarks.runs import Bench, command_line, medians

# nanoGPT's size on the same characters, and GPT-2 124M for the share of the card's peak. Compiling takes as
# long as these steps.
GPU_BEST = {
    "--preset": "small",
    "--model.num-layers": 6,
    "--model.convolution": 2,
    "--model.dropout": 0.3,
    "--train.weight-decay": 0.6,
    "--train.batch-size": 64,
    "--train.compile": "off",
    "--max-steps": 1400,
}
GPU_124M = {
    "--preset": "gpt2",
    "--tokenizer": "char",
    "--model.vocab-size": 50257,
    "--model.dropout": 0.0,
    "--train.batch-size": 16,
    "--train.gradient-accumulation": 1,
    "--train.compile": "on",
    "--train.log-every": 1,
    "--train.sample-tokens": 0,
    "--max-steps": 60,
}
GPU_124M_PEER = (
    "--device=cuda --compile=True --eval_iters=1 --log_interval=1 --eval_interval=1000 --dropout=0.0 "
    "--block_size=1024 --batch_size=16 --n_layer=12 --n_head=12 --n_embd=768 --max_iters=60 "
    "--lr_decay_iters=60 --bias=True --dataset=plain"
)
TOKENS_PER_STEP = 16 * 1024


def gpu(bench: Bench, stages: Sequence[str]) -> dict[str, Any]:
    """The card's name and, of each of ``stages``, its runs."""
    name = _gpu_name()
    if name is None:
        return {"not run": "no CUDA device"}
    return {"device": name} | {stage: STAGES[stage](bench) for stage in stages}


def mfu(bench: Bench) -> dict[str, Any]:
    """Tokens a second of GPT-2 124M, and the share of the card's peak."""
    return _repeat(bench, GPU_124M)


def best(bench: Bench) -> dict[str, Any]:
    """The lowest loss at nanoGPT's size (on tinyshakespeare it published 1.4697), and its seconds."""
    return _repeat(bench, GPU_BEST)


def peer(bench: Bench) -> dict[str, Any]:
    """minilm and nanoGPT in turn, both GPT-2 124M: how many times its rate."""
    if bench.peer is None:
        return {"not run": "no --peer"}
    pairs = [
        (bench.train(GPU_124M), bench.train_peer(GPU_124M_PEER, TOKENS_PER_STEP))
        for _ in range(bench.repeats)
    ]
    return {
        "command": command_line(GPU_124M),
        "peer_command": f"train.py config/train_shakespeare_char.py {GPU_124M_PEER}",
        "runs": [{"minilm": run, "peer": peer_run} for run, peer_run in pairs],
        "times_peer": statistics.median(a["rate"] / b["rate"] for a, b in pairs),
    }


STAGES: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "mfu": mfu,
    "best": best,
    "peer": peer,
}


def _repeat(bench: Bench, options: Mapping[str, Any]) -> dict[str, Any]:
    """Runs that differ in their seed alone."""
    runs = [bench.train({**options, "--seed": seed}) for seed in range(bench.repeats)]
    return {
        "command": command_line(options),
        "runs": runs,
        "medians": medians(runs),
        "mean_loss": statistics.mean(run["loss"] for run in runs),
    }


def _gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
