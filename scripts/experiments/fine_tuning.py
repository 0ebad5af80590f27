"""python scripts/experiments/fine_tuning.py --data FILE: at which fraction of its base's rates to fine-tune.

Trains small bases on Python's own sources and fine-tunes each on other texts, at several fractions. Each
run is a line of scripts/experiments/fine_tuning.jsonl; those that are there are not run again. Writes the
table in docs/training.md.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm.runs.logs import read_metrics  # noqa: E402
from minilm.training.train import train  # noqa: E402
from scripts.experiments.training_page import PAGE, text_option, write_table  # noqa: E402

RESULTS = Path(__file__).with_name("fine_tuning.jsonl")
# Smaller than `nano`, so that a run takes some ten seconds of one core.
SHAPE = {"context_length": 64, "num_layers": 2, "d_model": 64, "num_heads": 2}
BASES: dict[str, dict[str, Any]] = {
    "Muon, 2,400 steps": {"max_steps": 2400},
    "Muon, 600 steps": {"max_steps": 600},
    "AdamW, 600 steps": {"max_steps": 600, "optimizer": "adamw", "learning_rate": 0.004},
}
# The last is of the kind that the bases were trained on.
TEXTS = ("shakespeare", "minilm's source", "minilm's documentation", "asyncio's source")
CHARACTERS = 100_000
STEPS = (50, 200)
FRACTIONS = (0.03, 0.1, 0.3, 1.0)
SEEDS = (0,)
SETTINGS = {"device": "cpu", "dtype": "float32", "compile": "off", "sample_tokens": 0}

Case = tuple[str, str, int, float, int]  # base, text, steps, fraction of the rates, seed
Losses = tuple[float, float]  # bits a byte, of the base and at the end


def main() -> int:
    """Run what is missing, then write the table."""
    shakespeare = text_option(__doc__ or "")
    results = read_results()
    # The seeds last, so that every case has one run before any has two.
    missing = [
        case
        for seed in SEEDS
        for base in BASES
        for text in TEXTS
        for steps in STEPS
        for fraction in FRACTIONS
        if (case := (base, text, steps, fraction, seed)) not in results
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = {
            "shakespeare": [shakespeare],
            "minilm's source": sorted((ROOT / "minilm").rglob("*.py")),
            # But for the page that the results are written into.
            "minilm's documentation": [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"],
            "asyncio's source": sorted(Path(asyncio.__file__).parent.glob("*.py")),
        }
        for text, paths in texts.items():
            content = "".join(path.read_text("utf-8") for path in sorted(paths) if path != PAGE)
            (folder / f"{text}.txt").write_text(content[:CHARACTERS], encoding="utf-8")
        for case in missing:
            results[case] = fine_tuned(folder, case)
            with RESULTS.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps([*case, *results[case]]) + "\n")
    write_table("fine-tuning", table(results))
    return 0


def read_results() -> dict[Case, Losses]:
    """What was run so far."""
    if not RESULTS.exists():
        return {}
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    return {tuple(line[:5]): tuple(line[5:]) for line in lines}


def table(results: dict[Case, Losses]) -> str:
    """One row a base, text and number of steps that were run; the means over the seeds."""
    rows = [
        "| Base | new text | steps | before | " + " | ".join(map(str, FRACTIONS)) + " |",
        "|---" * (4 + len(FRACTIONS)) + "|",
    ]
    runs: dict[tuple[str, str, int], dict[float, list[Losses]]] = {}
    for (base, text, steps, fraction, _), losses in results.items():
        runs.setdefault((base, text, steps), {}).setdefault(fraction, []).append(losses)
    for (base, text, steps), by_fraction in sorted(runs.items()):
        before = next(iter(by_fraction.values()))[0][0]
        ends = [mean(end for _, end in by_fraction[fraction]) for fraction in FRACTIONS]
        cells = " | ".join(f"{loss:.3f}" for loss in (before, *ends))
        rows.append(f"| {base} | {text} | {steps} | {cells} |")
    return "\n".join(rows) + "\n"


def fine_tuned(folder: Path, case: Case) -> Losses:
    """The validation loss of a base, which is trained into ``folder`` first, and that of the last step."""
    base, text, steps, fraction, seed = case
    if not (folder / base).exists():
        settings = BASES[base] | {"eval_every": BASES[base]["max_steps"]}
        train(run_dir=folder / base, vocab_size=512, model=SHAPE, settings=SETTINGS | settings)
    record = json.loads((folder / base / "config.json").read_text(encoding="utf-8"))["train"]
    rates = {name: fraction * record[name] for name in ("learning_rate", "muon_learning_rate")}
    run_dir = folder / "-".join(map(str, case))
    settings = {
        "max_steps": steps,
        "eval_every": steps,
        "eval_tokens": 0,
        "early_stopping": 0,
        "seed": seed,
        **rates,
    }
    train(
        data=str(folder / f"{text}.txt"),
        run_dir=run_dir,
        init_from=folder / base,
        model={"dropout": 0.0},
        settings=SETTINGS | settings,
    )
    lines = read_metrics(run_dir / "metrics.jsonl")
    before, *_, after = (line["val_bits_per_byte"] for line in lines if "val_loss" in line)
    return before, after


if __name__ == "__main__":
    sys.exit(main())
