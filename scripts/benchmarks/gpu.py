"""bench.py train on one CUDA card; elsewhere it says so."""

from __future__ import annotations

import statistics
from typing import Any

from scripts.benchmarks.runs import Bench, medians, shown

# One GPU: nanoGPT's own shape on the same characters, and GPT-2 124M for the share of the card's peak.
GPU_SEEDS = 5
GPU_REACH = {
    "--preset": "small",
    "--model.num-layers": 6,
    "--model.dropout": 0.2,
    "--train.batch-size": 64,
    "--max-steps": 700,
}
GPU_BEST = GPU_REACH | {"--model.dropout": 0.3, "--max-steps": 2500}
GPU_124M = {
    "--preset": "gpt2",
    "--tokenizer": "char",
    "--model.vocab-size": 50257,
    "--model.dropout": 0.0,
    "--train.batch-size": 16,
    "--train.gradient-accumulation": 1,
    "--train.log-every": 1,
    "--train.sample-tokens": 0,
    "--max-steps": 60,
}
GPU_124M_PEER = (
    "--device=cuda --compile=True --eval_iters=1 --log_interval=1 --eval_interval=1000 --dropout=0.0 "
    "--block_size=1024 --batch_size=16 --n_layer=12 --n_head=12 --n_embd=768 --max_iters=60 "
    "--lr_decay_iters=60 --bias=True --dataset=plain"
)


def gpu(bench: Bench) -> dict[str, Any]:
    """On one CUDA card: seconds to nanoGPT's published loss, the best loss, and MFU beside the peer's."""
    name = _gpu_name()
    if name is None:
        return {"not run": "no CUDA device"}
    seeds = [bench.train(GPU_BEST | {"--seed": seed}) for seed in range(GPU_SEEDS)]
    reach = [bench.train(GPU_REACH | {"--seed": seed}) for seed in range(GPU_SEEDS)]
    result: dict[str, Any] = {
        "device": name,
        "commands": {
            key: shown(options)
            for key, options in {"reach": GPU_REACH, "best": GPU_BEST, "mfu": GPU_124M}.items()
        },
        "runs": {"reach": reach, "best": seeds},
        "medians": {"reach": medians(reach), "best": medians(seeds)},
        "mean_loss": {
            "reach": statistics.mean(run["loss"] for run in reach),
            "best": statistics.mean(run["loss"] for run in seeds),
        },
    }
    pairs = []
    for _ in range(bench.repeats):
        ours = bench.train(GPU_124M)
        theirs = bench.train_peer(GPU_124M_PEER, 16 * 1024) if bench.peer is not None else None
        pairs.append((ours, theirs))
    result["mfu"] = statistics.median(ours["utilisation"] or 0.0 for ours, _ in pairs)
    if bench.peer is not None:
        result["times_peer"] = statistics.median(a["rate"] / b["rate"] for a, b in pairs if b)
    return result


def _gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
