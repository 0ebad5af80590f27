"""python scripts/experiments/search_against_preset.py --data FILE: a search, all of its cost, or the preset.

The first 10,000 characters of a text are trained on, 50,000 behind them are the test, by which nothing is
chosen. A search makes some trials, each as long as the preset's own run. The preset gets what they computed
together, FLOPs and processor seconds until both are spent, for runs of its own length, of twice that, of all
that is left, and then of its own length with other seeds; the run with the best validation loss is its
result. Each arm and seed is a line of scripts/experiments/search_against_preset.jsonl; those that are there
are not run again. Writes the table in docs/search.md. Needs the extra 'search'; a quarter of an hour on one
core. The text of the table is /usr/include/linux/nl80211.h of Debian's linux-libc-dev 6.1.187-1.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm.architectures.minilm import layout  # noqa: E402
from minilm.checkpoint import read_run_config  # noqa: E402
from minilm.costs.flops import flops_per_token  # noqa: E402
from minilm.hyperparameters.result import describe  # noqa: E402
from minilm.hyperparameters.search import search  # noqa: E402
from minilm.operations.evaluate import evaluate  # noqa: E402
from minilm.training.train import train  # noqa: E402
from scripts.experiments.training_page import text_option, write_table  # noqa: E402

RESULTS = Path(__file__).with_name("search_against_preset.jsonl")
PAGE = ROOT / "docs" / "search.md"
CHARACTERS, TEST_CHARACTERS = 10_000, 50_000
SEEDS = (0, 1, 2)
TRIALS = 10
TPE, PRESET, RANDOM = "search (tpe)", "preset", "search (random)"
ARMS = (TPE, PRESET, RANDOM)
OTHER_SEED = 1000  # between the seeds of runs of equal length
SETTINGS = {"device": "cpu", "sample_tokens": 0, "save_every_seconds": 0.0}

Results = Mapping[tuple[str, int], Mapping[str, Any]]  # of one text, by arm and seed


@dataclass(frozen=True)
class Texts:
    """The text that is learned, the test, and where runs go."""

    folder: Path

    @property
    def learned(self) -> Path:
        return self.folder / "learned.txt"

    @property
    def test(self) -> Path:
        return self.folder / "test.txt"

    def write(self, text: str) -> None:
        self.learned.write_text(text[:CHARACTERS], encoding="utf-8")
        test = text[CHARACTERS : CHARACTERS + TEST_CHARACTERS]
        known = set(text[:CHARACTERS])  # the tokenizer has no other characters
        self.test.write_text("".join(c for c in test if c in known), encoding="utf-8")


def searched(texts: Texts, seed: int, sampler: Any) -> dict[str, Any]:
    """The best trial of a search, and what all of them took."""
    began = time.process_time()
    study = texts.folder / f"{sampler}-{seed}.db"
    result = search(
        texts.learned,
        study=study,
        params=1_000_000,
        trials=TRIALS,
        sampler=sampler,
        tokenizer="char",
        settings={**SETTINGS, "seed": seed},
        cache=texts.folder / "cache",
    )
    seconds = time.process_time() - began
    assert result.best is not None
    assert result.best.candidate is not None
    assert result.run_dir is not None
    return {
        **losses(result.run_dir, result.best.loss, texts),
        "flops": sum(row.flops for row in result.trials),
        "cpu_seconds": seconds,
        "best": describe(result.best.candidate),
        "pruned": result.counts["pruned"],
    }


def preset(texts: Texts, seed: int, flops: float, cpu_seconds: float) -> dict[str, Any]:
    """The best of the preset's runs, which together take as much as a search did."""
    spent_flops = spent_seconds = 0.0
    runs: list[dict[str, Any]] = []
    while not runs or spent_flops < flops or spent_seconds < cpu_seconds:
        fields: dict[str, Any] = {"seed": seed + OTHER_SEED * max(0, len(runs) - 2)}
        if len(runs) == 1:
            fields["max_steps"] = 2 * runs[0]["steps"]
        elif len(runs) == 2:
            steps = sum(run["steps"] for run in runs)
            left = max(flops / spent_flops, cpu_seconds / spent_seconds) - 1
            fields["max_steps"] = max(1, round(left * steps))
        began = time.process_time()
        outcome = train(
            data=texts.learned,
            tokenizer="char",
            run_dir=texts.folder / f"preset-{seed}-{len(runs)}",
            settings={**SETTINGS, **fields},
            cache=texts.folder / "cache",
        )
        spent_seconds += time.process_time() - began
        summary = outcome.summary
        spent_flops += summary["tokens"] * training_flops(outcome.run_dir)
        runs.append(
            {"steps": summary["steps"], "loss": summary["best_val_loss"], "run": outcome.run_dir}
        )
    best = min(runs, key=lambda run: run["loss"])
    return {
        **losses(best["run"], best["loss"], texts),
        "flops": spent_flops,
        "cpu_seconds": spent_seconds,
        "best": f"run {runs.index(best) + 1}; steps: {', '.join(str(r['steps']) for r in runs)}",
    }


def training_flops(run: Path) -> int:
    """Of a run's model, for a token."""
    model = read_run_config(run)
    return flops_per_token(layout(model), context=model.context_length)["training_per_token"]


def losses(run: Path, val_loss: float | None, texts: Texts) -> dict[str, Any]:
    """On validation, which chose the weights, and on the test."""
    result = evaluate(run, str(texts.test), device="cpu", cache=texts.folder / "cache")
    return {"val_loss": val_loss, "test_loss": result.loss}


def read_results() -> dict[str, dict[tuple[str, int], dict[str, Any]]]:
    """What each arm and seed gave, by the text."""
    results: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
    if RESULTS.exists():
        for line in map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines()):
            results.setdefault(line["text"], {})[line["arm"], line["seed"]] = line
    return results


def difference(results: Results, arm: str, other: str) -> tuple[float, float] | None:
    """By how much the test loss of ``arm`` is below that of ``other``: mean and standard error over seeds."""
    pairs = [
        results[other, seed]["test_loss"] - results[arm, seed]["test_loss"]
        for seed in SEEDS
        if {(arm, seed), (other, seed)} <= results.keys()
    ]
    if len(pairs) < 2:
        return None
    return statistics.mean(pairs), statistics.stdev(pairs) / len(pairs) ** 0.5


def table(results: Mapping[str, Results]) -> str:
    """Of each text a row for each arm, and the differences."""
    return "\n".join(text_table(text, arms) for text, arms in results.items())


def text_table(text: str, results: Results) -> str:
    """Of one text."""
    rows = [
        f"| {text} | test loss, each seed | mean | validation | FLOPs | processor seconds |",
        "|---|---|---|---|---|---|",
    ]
    for arm in ARMS:
        lines = [results[arm, seed] for seed in SEEDS if (arm, seed) in results]
        if lines:
            each = ", ".join(f"{line['test_loss']:.3f}" for line in lines)
            means = {
                name: statistics.mean(line[name] for line in lines)
                for name in ("test_loss", "val_loss", "flops", "cpu_seconds")
            }
            rows.append(
                f"| {arm} | {each} | {means['test_loss']:.3f} | {means['val_loss']:.3f} | "
                f"{means['flops']:.2e} | {means['cpu_seconds']:.0f} |"
            )
    sentences = [
        f"The test loss of {arm} is {'lower' if mean > 0 else 'higher'} than that of {other} by "
        f"{abs(mean):.3f}, standard error {error:.3f}."
        for arm, other in ((TPE, PRESET), (RANDOM, PRESET), (TPE, RANDOM))
        for mean, error in filter(None, [difference(results, arm, other)])
    ]
    return "\n".join(rows) + "\n\n" + "\n".join(sentences) + "\n"


def run(arm: str, seed: int, texts: Texts, results: Results) -> dict[str, Any]:
    """One arm with one seed; the preset's comes after the search's."""
    if arm == PRESET:
        spent = results[TPE, seed]
        return preset(texts, seed, spent["flops"], spent["cpu_seconds"])
    return searched(texts, seed, "tpe" if arm == TPE else "random")


def cases() -> Sequence[tuple[str, int]]:
    """Arms and seeds, what the comparison needs first."""
    against_preset = [(arm, seed) for seed in SEEDS for arm in (TPE, PRESET)]
    return [*against_preset, *((RANDOM, seed) for seed in SEEDS)]


def main() -> int:
    """Run what is missing, then write the table."""
    data = text_option(__doc__ or "")
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("minilm.hyperparameters").setLevel(logging.INFO)
    all_results = read_results()
    text = f"{data.name}, {CHARACTERS:,} characters"
    results = all_results.setdefault(text, {})
    with tempfile.TemporaryDirectory() as folder:
        texts = Texts(Path(folder))
        texts.write(data.read_text(encoding="utf-8"))
        for arm, seed in cases():
            if (arm, seed) not in results:
                line = {"text": text, "arm": arm, "seed": seed, **run(arm, seed, texts, results)}
                results[arm, seed] = line
                with RESULTS.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line) + "\n")
    write_table("search", table(all_results), PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
