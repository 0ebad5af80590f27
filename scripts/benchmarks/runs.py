"""Runs of both programs for bench.py train: whole processes, measured, and what they wrote down."""

from __future__ import annotations

import json
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.benchmarks import nanogpt
from scripts.benchmarks.process import run

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Bench:
    """Where the runs are, and how often each is made."""

    folder: Path
    data: Path
    repeats: int
    peer_folder: Path | None
    nanochat: Path | None = None
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
            "bits_per_byte": summary["best_val_bits_per_byte"],
            "parameters": summary["parameters"],
            "tokens": summary["tokens"],
            "dtype": summary["dtype"],
            "rate": nanogpt.steady(rates),
            "utilisation": _utilisation(summary, nanogpt.steady(rates)),
            "peak_flops": summary["peak_flops"],
            "curve": [(line["seconds"], line["val_loss"]) for line in lines if "val_loss" in line],
        }

    def steps_within(self, options: Mapping[str, Any], seconds: float) -> int:
        """As many steps as end, with all that is around them, within ``seconds``."""
        # The first of such a length measures how to compute, which later runs remember: no part of a step.
        _, longer, short = (
            self.train({**options, "--max-steps": steps})["seconds"] for steps in (220, 220, 20)
        )
        each = (longer - short) / 200
        return 20 + int(0.97 * (seconds - short) / each)  # the machine's speed varies

    def ending_within(self, options: dict[str, Any], seconds: float) -> dict[str, Any]:
        """A run that ends within ``seconds``: as long as one does not, the next has fewer steps."""
        while True:
            done = self.train(options)
            if done["seconds"] <= seconds:
                return done
            steps = int(0.95 * options["--max-steps"] * seconds / done["seconds"])
            options["--max-steps"] = steps

    def train_peer(
        self, flags: str, tokens_per_step: int, peer: Path | None = None
    ) -> dict[str, Any]:
        """A run of nanoGPT, likewise; ``peer`` is its copy with another text."""
        copy = peer or self.peer
        assert copy is not None
        done = asdict(nanogpt.train(copy, flags, tokens_per_step))
        print(f"nanoGPT: {done['seconds']:.1f} s {flags}", file=sys.stderr)
        return done


def command_line(options: Mapping[str, Any]) -> str:
    """The command line of a run, without the folders of this machine."""
    return shlex.join(["scripts/train.py", *command(Path("FILE"), options)[2:]])


# What would follow from the size of the text.
FIXED = {"--train.eval-tokens": 0, "--early-stopping": 0, "--model.dropout": 0.0}


def command(data: Path, options: Mapping[str, Any]) -> list[str]:
    """train.py with these options, evaluating at the end alone."""
    steps = options.get("--max-steps", 1)
    fields = {"--data": data, "--tokenizer": "char", "--eval-every": steps, **FIXED, **options}
    pairs = [str(part) for pair in fields.items() for part in pair]
    return [sys.executable, str(ROOT / "scripts" / "train.py"), *pairs]


def _utilisation(summary: Mapping[str, Any], rate: float) -> float | None:
    """Of the steady rate: the summary's share is of the whole run, compilation included."""
    average, share = summary["tokens_per_second"], summary["model_flops_utilisation"]
    return share * rate / average if share and average else None


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    keys = [key for key, value in runs[0].items() if isinstance(value, (int, float))]
    return {key: statistics.median(run[key] for run in runs) for key in keys}
