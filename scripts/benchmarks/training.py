"""bench.py train --data FILE [--peer NANOGPT]: minilm and nanoGPT side by side, on the same characters.

Whole processes, start-up, evaluation and saving included, run in turn, several times; losses are over the
whole validation split in consecutive windows. Prints JSON: machine, commands, runs, medians and ratios.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scripts.benchmarks import nanogpt
from scripts.benchmarks.process import machine, run

ROOT = Path(__file__).resolve().parent.parent.parent

TARGET = 1.88  # nats a character: what nanoGPT's README says of its run on a CPU
MOST_PARAMETERS = {"reach": 850_000, "best": 2_000_000}

# Options of train.py for each question; what they have in common is added by `command`.
REACH = {
    "--preset": "nano-fast",
    "--model.context-length": 64,
    "--model.num-layers": 2,
    "--model.d-model": 64,
    "--model.num-heads": 2,
    "--model.ngram": 4,
    "--model.ngram-rows": 3000,
    "--train.batch-size": 16,
    "--max-steps": 112,
}
REACH_ANY = REACH | {"--model.num-layers": 1, "--model.ngram-rows": 8192, "--max-steps": 102}
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
SAVING_PAIRS = 20
# nanoGPT's model: learned positions, no biases, a tied head.
PEER_MODEL = {
    "--train.optimizer": "adamw",
    "--train.beta2": 0.99,
    "--model.position": "learned",
    "--model.norm-bias": "false",
    "--model.qkv-bias": "false",
    "--model.attention-output-bias": "false",
    "--model.feed-forward-bias": "false",
    "--model.tied-embeddings": "true",
}


def main(arguments: Sequence[str]) -> int:
    """Run the comparisons that the arguments name."""
    parser = argparse.ArgumentParser(
        prog="bench.py train", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--peer", type=Path, metavar="FOLDER", help="a checkout of nanoGPT")
    parser.add_argument("--data", type=Path, required=True, help="a text file, read by both")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args(arguments)
    for path in (options.data, *([options.peer / "train.py"] if options.peer else [])):
        if not path.is_file():
            print(f"error: {path}: no such file, expected a text and a checkout", file=sys.stderr)
            return 2
    if options.out is not None and not options.out.absolute().parent.is_dir():
        print(f"error: --out: {options.out.parent}: no such folder", file=sys.stderr)
        return 2
    if options.repeats < 1:
        print("error: --repeats: expected at least 1", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="minilm-bench-") as folder:
        bench = Bench(Path(folder), options.data.resolve(), options.repeats, options.peer)
        results = {part: PARTS[part](bench) for part in options.only}
    found = machine() | {"torch": version("torch")}
    text = json.dumps({"machine": found, "date": _today(), **results}, indent=2)
    print(text, flush=True)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0


@dataclass
class Bench:
    """Where the runs are, and how often each is made."""

    folder: Path
    data: Path
    repeats: int
    peer_folder: Path | None
    runs: int = 0

    def __post_init__(self) -> None:
        self.peer = (
            nanogpt.prepare(self.peer_folder, self.data, self.folder) if self.peer_folder else None
        )
        # Both find their text encoded: preparing it is part of no run.
        self.train({"--max-steps": 1, "--train.sample-tokens": 0})

    def train(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """A run of minilm; its seconds, and what it wrote down."""
        self.runs += 1
        target = self.folder / f"run-{self.runs}"
        line = [*command(self.data, options), "--run-dir", str(target)]
        done = run(line, environment={"MINILM_CACHE": str(self.folder / "cache")})
        if done.status:
            raise SystemExit(f"error: {shlex.join(line)}: exit {done.status}\n{done.errors}")
        summary = json.loads((target / "summary.json").read_text(encoding="utf-8"))
        metrics = (target / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        lines = [json.loads(line) for line in metrics]
        rates = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
        print(f"run {self.runs}: {done.seconds:.1f} s {shlex.join(line[2:])}", file=sys.stderr)
        return {
            "seconds": done.seconds,
            "peak_mib": done.peak_mib,
            "loss": summary["best_val_loss"],
            "parameters": summary["parameters"],
            "tokens": summary["tokens"],
            "rate": nanogpt.steady(rates),
            "utilisation": _utilisation(summary, nanogpt.steady(rates)),
            "peak_flops": summary["peak_flops"],
            "curve": [(line["seconds"], line["val_loss"]) for line in lines if "val_loss" in line],
        }

    def train_peer(self, flags: str, tokens_per_step: int) -> dict[str, Any]:
        """A run of nanoGPT, likewise."""
        assert self.peer is not None
        done = asdict(nanogpt.train(self.peer, flags, tokens_per_step))
        print(f"nanoGPT: {done['seconds']:.1f} s {flags}", file=sys.stderr)
        return done


def command(data: Path, options: Mapping[str, Any]) -> list[str]:
    """train.py with these options, evaluating at the end alone."""
    steps = options.get("--max-steps", 1)
    fields = {"--data": data, "--tokenizer": "char", "--eval-every": steps, **options}
    pairs = [str(part) for pair in fields.items() for part in pair]
    return [sys.executable, str(ROOT / "scripts" / "train.py"), *pairs]


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
            best["--max-steps"] = _steps_within(bench, runs["peer"][0]["seconds"])
        runs["best"].append(bench.train(best))
    for name, runs_of_it in runs.items():
        for each in runs_of_it:
            _check(name, each)
    result: dict[str, Any] = {
        "target": TARGET,
        "commands": {
            name: shlex.join(command(Path("FILE"), options)[1:])
            for name, options in {**questions, "best": best}.items()
        },
        "peer_command": f"train.py config/train_shakespeare_char.py {nanogpt.README}",
        "runs": runs,
        "medians": {name: _medians(each) for name, each in runs.items() if each},
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


def _steps_within(bench: Bench, seconds: float) -> int:
    """As many steps of BEST as end, with all that is around them, within ``seconds``."""
    short, longer = (bench.train(BEST | {"--max-steps": steps})["seconds"] for steps in (20, 120))
    each = (longer - short) / 100
    return int(0.93 * (seconds - short) / each)  # the machine's speed wanders by some percent


def rates(bench: Bench) -> dict[str, Any]:
    """Steady tokens a second at the peer's shapes and batch."""
    results = {}
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
        runs: dict[str, list[dict[str, Any]]] = {"minilm": [], "peer": [], "peer_compiled": []}
        for _ in range(bench.repeats):
            runs["minilm"].append(bench.train(PEER_MODEL | shape))
            if bench.peer is not None:
                for who, compiled in (("peer", False), ("peer_compiled", True)):
                    if compiled and name == "large":
                        continue
                    runs[who].append(
                        bench.train_peer(f"--compile={compiled} {flags}", context * PEER_BATCH)
                    )
        result: dict[str, Any] = {
            "command": shlex.join(command(Path("FILE"), PEER_MODEL | shape)[1:]),
            "peer_command": f"train.py config/train_shakespeare_char.py --compile=False {flags}",
            "runs": runs,
            "medians": {who: _medians(each) for who, each in runs.items() if each},
        }
        for who in ("peer", "peer_compiled"):
            pairs = list(zip(runs["minilm"], runs[who], strict=False))
            if pairs:
                result[f"times_{who}"] = statistics.median(a["rate"] / b["rate"] for a, b in pairs)
        results[name] = result
    return results


def memory(bench: Bench) -> dict[str, Any]:
    """The largest resident set of a run of `nano` on the default text, evaluation and report included."""
    options = {"--preset": "nano", "--data": "stdlib", "--tokenizer": "bpe", "--max-steps": 60}
    runs = [bench.train(options) for _ in range(bench.repeats)]
    return {
        "command": shlex.join(command(Path("FILE"), options)[1:]),
        "runs": runs,
        "peak_mib": statistics.median(each["peak_mib"] for each in runs),
    }


def saving(bench: Bench) -> dict[str, Any]:
    """What a save of `nano` costs: stretches of steps with one against stretches without, in turn."""
    loop = _nano_loop(bench)
    steps, pairs, blocked = 12, [], []
    for _ in range(SAVING_PAIRS + 1):
        seconds = []
        for save in (False, True):
            begin = time.perf_counter()
            if save:
                loop.save()
                blocked.append(time.perf_counter() - begin)
            for _ in range(steps):
                loop._step()
            loop.saver.wait()
            seconds.append(time.perf_counter() - begin)
        pairs.append(seconds)
    loop.saver.close()
    pairs = pairs[1:]  # the first warms up
    milliseconds = 1000 * statistics.median(after - before for before, after in pairs)
    return {
        "pairs": len(pairs),
        "steps_between": steps,
        "step_ms": 1000 * statistics.median(before for before, _ in pairs) / steps,
        "blocked_ms": 1000 * statistics.median(blocked[1:]),
        "milliseconds": milliseconds,
        "share_of_a_minute": milliseconds / 60_000,
    }


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
            key: shlex.join(command(Path("FILE"), options)[1:])
            for key, options in {"reach": GPU_REACH, "best": GPU_BEST, "mfu": GPU_124M}.items()
        },
        "runs": {"reach": reach, "best": seeds},
        "medians": {"reach": _medians(reach), "best": _medians(seeds)},
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


def _nano_loop(bench: Bench) -> Any:
    """A loop of the default run, as train() makes it."""
    import torch

    from minilm.data.shards import prepare
    from minilm.model.transformer import Transformer
    from minilm.presets import find_preset
    from minilm.text.corpora import open_corpus
    from minilm.training.loop import Loop
    from minilm.training.runtime import resolve
    from minilm.training.stopping import StopRequest

    nano, cache, folder = find_preset("nano"), bench.folder / "cache", bench.folder / "saving"
    folder.mkdir()
    config, model = nano.train_config(device="cpu"), nano.model_config()
    data = prepare(
        open_corpus("stdlib", cleaning=(), cache=cache),
        tokenizer=nano.tokenizer,
        vocab_size=model.vocab_size,
        val_fraction=config.val_fraction,
        cache=cache,
        context_length=model.context_length,
    )
    network = Transformer(model, torch.Generator().manual_seed(0))
    return Loop(network, config, data, folder, resolve(config, 1.0), {}, None, StopRequest())


def _utilisation(summary: Mapping[str, Any], rate: float) -> float | None:
    """Of the steady rate: the summary's share is of the whole run, compilation included."""
    average, share = summary["tokens_per_second"], summary["model_flops_utilisation"]
    return share * rate / average if share and average else None


def _medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    keys = [key for key, value in runs[0].items() if isinstance(value, (int, float))]
    return {key: statistics.median(run[key] for run in runs) for key in keys}


def _today() -> str:
    import datetime

    return datetime.date.today().isoformat()


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "quality": quality,
    "rates": rates,
    "memory": memory,
    "saving": saving,
    "gpu": gpu,
}
