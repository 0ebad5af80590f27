"""bench.py train --data FILE [--peer NANOGPT]: minilm and nanoGPT side by side, on the same characters.

Whole processes, start-up, evaluation and saving included, run in turn, several times; losses are over the
whole validation split in consecutive windows. Prints JSON: machine, commands, runs, medians and ratios.
"""

from __future__ import annotations

import datetime
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from minilm.cli.entry import OneLineParser
from scripts.benchmarks import nanogpt
from scripts.benchmarks.costs import memory, saving
from scripts.benchmarks.default_text import default_text
from scripts.benchmarks.gpu import STAGES, gpu
from scripts.benchmarks.process import check_out, save_results, torch_machine, write_results
from scripts.benchmarks.runs import Bench, command_line, medians

TARGET = 1.88  # nats a character: what nanoGPT's README says of its run on a CPU
MOST_PARAMETERS = {"reach": 850_000, "best": 2_000_000}

# Options of train.py for each question; those that all have are added by `command`.
REACH = {
    "--preset": "nano-fast",
    "--model.context-length": 64,
    "--model.num-layers": 2,
    "--model.d-model": 64,
    "--model.num-heads": 2,
    "--model.ngram": 4,
    "--model.ngram-rows": 3000,
    "--train.batch-size": 16,
    "--max-steps": 102,
}
REACH_ANY = REACH | {"--model.num-layers": 1, "--model.ngram-rows": 8192, "--max-steps": 90}
BEST = {
    "--preset": "nano-fast",
    "--model.context-length": 128,
    "--model.num-layers": 4,
    "--model.d-model": 96,
    "--model.num-heads": 3,
    "--model.ngram": 3,
    "--train.batch-size": 16,
}
# Layers, heads, width, context: the shapes whose steady rates are compared, and the steps timed.
SHAPES = {"small": (4, 4, 128, 64, 300), "large": (6, 6, 384, 256, 12)}
PEER_BATCH = 12
# What each program whose steady rate is measured runs with besides.
COMPILATION = {
    "minilm": "--train.compile off",
    "minilm_compiled": "--train.compile on",
    "peer": "--compile=False",
    "peer_compiled": "--compile=True",
}
# nanoGPT's model: learned positions, no biases, a tied head; and its optimizer.
PEER_MODEL = {
    "--train.optimizer": "adamw",
    "--train.learning-rate": 1e-3,
    "--train.warmup-steps": 100,
    "--train.schedule": "cosine",
    "--train.beta1": 0.9,
    "--train.beta2": 0.99,
    "--train.weight-decay": 0.1,
    "--train.gradient-clip": 1.0,
    "--model.output-initialization": "scaled",
    "--model.embedding-std": 0.02,
    "--model.init-std": 0.02,
    "--model.position": "learned",
    "--model.norm-bias": "false",
    "--model.qkv-bias": "false",
    "--model.attention-output-bias": "false",
    "--model.feed-forward-bias": "false",
    "--model.tied-embeddings": "true",
}


def main(arguments: Sequence[str]) -> int:
    """Run the comparisons that the arguments name."""
    parser = OneLineParser(prog="bench.py train", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", type=Path, metavar="FOLDER", help="a checkout of nanoGPT")
    parser.add_argument(
        "--nanochat", type=Path, metavar="FOLDER", help="a checkout of nanochat, for default_text"
    )
    parser.add_argument("--data", type=Path, required=True, help="a text file, read by both")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=(*PARTS, "gpu"), default=[*PARTS, "gpu"])
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=list(STAGES), help="of the part gpu"
    )
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args(arguments)
    checkouts = (options.peer, "train.py"), (options.nanochat, "nanochat/gpt.py")
    for path in (options.data, *(folder / file for folder, file in checkouts if folder)):
        if not path.is_file():
            print(f"error: {path}: no such file, expected a text and a checkout", file=sys.stderr)
            return 2
    if options.peer is None and options.only == ["default_text"]:
        print("error: --peer: missing, expected for default_text", file=sys.stderr)
        return 2
    if options.repeats < 1:
        print("error: --repeats: expected at least 1", file=sys.stderr)
        return 2
    if not check_out(options.out):
        return 2
    with tempfile.TemporaryDirectory(prefix="minilm-bench-") as folder:
        data, nanochat = options.data.resolve(), options.nanochat and options.nanochat.resolve()
        bench = Bench(Path(folder), data, options.repeats, options.peer, nanochat)
        parts = PARTS | {"gpu": partial(gpu, stages=options.stages)}
        results: dict[str, Any] = {"date": datetime.date.today().isoformat()}
        for part in options.only:
            results[part] = parts[part](bench)
            # After a part: torch, which it imports, would be in the memory that is measured of a process.
            results = {"machine": torch_machine()} | results
            save_results(results, options.out)
    write_results(results, options.out)
    return 0


def quality(bench: Bench) -> dict[str, Any]:
    """Seconds to the target, and the loss in nanoGPT's own time: one turn of all of them a repeat."""
    questions: dict[str, Mapping[str, Any]] = {"reach": REACH, "reach_any": REACH_ANY}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in (*questions, "peer", "best")}
    best = dict(BEST)
    for _ in range(bench.repeats):
        for name, options in questions.items():
            runs[name].append(bench.train(options))
        if bench.peer is None:
            continue
        runs["peer"].append(bench.train_peer(nanogpt.README, 64 * PEER_BATCH))
        if "--max-steps" not in best:
            best["--max-steps"] = bench.steps_within(best, runs["peer"][0]["seconds"])
        runs["best"].append(bench.ending_within(best, runs["peer"][-1]["seconds"]))
    for name, runs_of_it in runs.items():
        for each in runs_of_it:
            _check(name, each)
    result: dict[str, Any] = {
        "target": TARGET,
        "commands": {
            name: command_line(options) for name, options in {**questions, "best": best}.items()
        },
        "peer_command": f"train.py config/train_shakespeare_char.py {nanogpt.README}",
        "runs": runs,
        "medians": {name: medians(each) for name, each in runs.items() if each},
    }
    if bench.peer is not None:
        for name in questions:
            pairs = zip(runs["peer"], runs[name], strict=True)
            result[f"times_{name}"] = statistics.median(
                p["seconds"] / o["seconds"] for p, o in pairs
            )
        curve = bench.train(best | {"--eval-every": max(1, best["--max-steps"] // 12)})
        result["curve"] = curve["curve"]
    return result


def _check(name: str, run_of_it: Mapping[str, Any]) -> None:
    """End with an error where a run is no answer to its question."""
    if name.startswith("reach") and run_of_it["loss"] > TARGET:
        raise SystemExit(f"error: {name} ended at {run_of_it['loss']:.4f}, above {TARGET}")
    limit = MOST_PARAMETERS.get(name)
    if limit is not None and run_of_it["parameters"] > limit:
        raise SystemExit(
            f"error: {name} has {run_of_it['parameters']:,} parameters, above {limit:,}"
        )


def rates(bench: Bench) -> dict[str, Any]:
    """Steady tokens a second at the peer's shapes and batch, as they come and compiled."""
    results: dict[str, Any] = {}
    for name, (layers, heads, width, context, steps) in SHAPES.items():
        shape = {
            "--model.num-layers": layers,
            "--model.num-heads": heads,
            "--model.d-model": width,
            "--model.context-length": context,
            "--max-steps": steps,
            "--train.batch-size": PEER_BATCH,
            "--train.log-every": 1,
            "--train.sample-tokens": 0,
        }
        flags = (
            f"--device=cpu --eval_iters=1 --log_interval=1 --eval_interval={steps} --dropout=0.0 "
            f"--block_size={context} --batch_size={PEER_BATCH} --n_layer={layers} --n_head={heads} "
            f"--n_embd={width} --max_iters={steps} --lr_decay_iters={steps}"
        )
        options = PEER_MODEL | shape
        runs: dict[str, list[dict[str, Any]]] = {program: [] for program in COMPILATION}
        for _ in range(bench.repeats):
            for program, flag in COMPILATION.items():
                if not program.startswith("peer"):
                    runs[program].append(bench.train(options | dict([flag.split()])))
                elif bench.peer is not None and (program, name) != ("peer_compiled", "large"):
                    tokens = context * PEER_BATCH
                    runs[program].append(bench.train_peer(f"{flag} {flags}", tokens))
        results[name] = {
            "command": command_line(options),
            "peer_command": f"train.py config/train_shakespeare_char.py {flags}",
            "runs": runs,
            "medians": {program: medians(each) for program, each in runs.items() if each},
            "times_peer": _ratios(runs, "peer"),
            "times_peer_compiled": _ratios(runs, "peer_compiled"),
        }
    return results


def _ratios(runs: Mapping[str, list[dict[str, Any]]], peer: str) -> dict[str, float]:
    """How many times the rate of ``peer`` each of the others reached, turn by turn."""
    return {
        program: statistics.median(
            a["rate"] / b["rate"] for a, b in zip(each, runs[peer], strict=True)
        )
        for program, each in runs.items()
        if each and runs[peer] and program != peer
    }


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "quality": quality,
    "default_text": default_text,
    "rates": rates,
    "memory": memory,
    "saving": saving,
}
