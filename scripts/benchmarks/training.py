"""bench.py train --peer NANOGPT --data FILE: minilm and nanoGPT side by side.

Both train on the same characters with the same shapes and batch, each as a whole process, in turn,
several times; the steady rate leaves out each one's first steps. Prints JSON: medians and ratios.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

# Name: layers, heads, width, context, batch, steps timed. `small` is nanoGPT's README run on a CPU.
SHAPES = {"small": (4, 4, 128, 64, 12, 300), "large": (4, 6, 384, 256, 12, 12)}
STEPS_LEFT_OUT = 0.3  # share of the steps that warm up


def main(arguments: Sequence[str]) -> int:
    """Run the comparison that the arguments name."""
    parser = argparse.ArgumentParser(prog="bench.py train", description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, metavar="FOLDER", help="a checkout of nanoGPT")
    parser.add_argument("--data", type=Path, required=True, help="a text file, read by both")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--batch", type=int, help="minilm's batch; default: the peer's")
    parser.add_argument("--compile", choices=["auto", "on", "off"], default="auto")
    options = parser.parse_args(arguments)
    for path in (options.data, *([options.peer / "train.py"] if options.peer else [])):
        if not path.is_file():
            print(f"error: {path}: no such file, expected a text and a checkout", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory() as folder:
        results = [compare(name, options, Path(folder)) for name in options.shapes]
    print(json.dumps(results, indent=2))
    return 0


def compare(name: str, options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """One shape: minilm and the peer in turn, ``repeats`` times each."""
    peer = prepare_peer(options.peer, options.data, folder) if options.peer else None
    runs: dict[str, list[dict[str, float]]] = {"minilm": [], "peer": []}
    commands = {"minilm": minilm_command(name, options)}
    if peer is not None:
        commands["peer"] = peer_command(name)
    for repeat in range(options.repeats):
        target = folder / f"{name}-{repeat}"
        command = [*commands["minilm"], "--run-dir", str(target)]
        seconds, _ = timed(command, None, folder)
        lines = [json.loads(line) for line in (target / "metrics.jsonl").read_text().splitlines()]
        rates = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
        runs["minilm"].append({"seconds": seconds, "tokens_per_second": steady(rates)})
        if peer is not None:
            seconds, output = timed(commands["peer"], peer, folder)
            tokens = SHAPES[name][3] * SHAPES[name][4]
            times = [float(ms) for ms in re.findall(r"time ([\d.]+)ms", output)]
            rates = [1000 * tokens / ms for ms in times]
            runs["peer"].append({"seconds": seconds, "tokens_per_second": steady(rates)})
        print(f"{name} {repeat + 1}/{options.repeats}: {runs}", file=sys.stderr)
    medians = {
        who: {key: statistics.median(run[key] for run in each) for key in each[0]}
        for who, each in runs.items()
        if each
    }
    result: dict[str, object] = {
        "shape": name,
        "commands": {who: shlex.join(command) for who, command in commands.items()},
        "runs": runs,
        "medians": medians,
    }
    if peer is not None:
        ratios = [
            ours["tokens_per_second"] / theirs["tokens_per_second"]
            for ours, theirs in zip(runs["minilm"], runs["peer"], strict=True)
        ]
        result["tokens_per_second_ratio"] = statistics.median(ratios)
    return result


def steady(rates: list[float]) -> float:
    """The median rate after the first steps."""
    return statistics.median(rates[int(len(rates) * STEPS_LEFT_OUT) :])


def minilm_command(name: str, options: argparse.Namespace) -> list[str]:
    """minilm with the peer's shape: learned positions, no biases, tied head, GELU."""
    layers, heads, width, context, batch, steps = SHAPES[name]
    fields = {
        "--data": options.data.resolve(),
        "--tokenizer": "char",
        "--max-steps": steps,
        "--eval-every": steps,
        "--compile": options.compile,
        "--train.log-every": 1,
        "--train.batch-size": options.batch or batch,
        "--train.gradient-accumulation": 1,
        "--train.beta2": 0.99,
        "--model.num-layers": layers,
        "--model.num-heads": heads,
        "--model.d-model": width,
        "--model.context-length": context,
        "--model.position": "learned",
        "--model.norm-bias": "false",
        "--model.qkv-bias": "false",
        "--model.attention-output-bias": "false",
        "--model.feed-forward-bias": "false",
        "--model.tied-embeddings": "true",
    }
    script = ROOT / "scripts" / "train.py"
    pairs = [str(part) for pair in fields.items() for part in pair]
    return [sys.executable, str(script), *pairs]


def peer_command(name: str) -> list[str]:
    """nanoGPT's README command for a CPU, with this shape and with one evaluation at the end."""
    layers, heads, width, context, batch, steps = SHAPES[name]
    flags = (
        "--device=cpu --compile=False --eval_iters=1 --log_interval=1 --always_save_checkpoint=False "
        f"--block_size={context} --batch_size={batch} --n_layer={layers} --n_head={heads} "
        f"--n_embd={width} --max_iters={steps} --lr_decay_iters={steps} --eval_interval={steps} "
        "--dropout=0.0"
    )
    return [
        sys.executable,
        "-W",
        "ignore",
        "train.py",
        "config/train_shakespeare_char.py",
        *flags.split(),
    ]


def prepare_peer(peer: Path, data: Path, folder: Path) -> Path:
    """A copy of the checkout with its own preparation run on ``data``."""
    copy = folder / "peer"
    if copy.exists():
        return copy
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
    return copy


def timed(command: list[str], cwd: Path | None, folder: Path) -> tuple[float, str]:
    """Wall seconds of a whole process, and what it printed."""
    cache = {"MINILM_CACHE": str(folder / "cache")}
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | cache, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"error: {shlex.join(command)}: exit {done.returncode}\n{done.stderr}")
    return time.perf_counter() - start, done.stdout
