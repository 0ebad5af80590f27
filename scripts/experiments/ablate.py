"""python scripts/experiments/ablate.py --data FILE: every ingredient of the recipe, one at a time.

Each case trains the base recipe with one thing changed, for several seeds, on one thread, two runs at a
time. A run is one line of scripts/experiments/ablations.jsonl; those that are there are not run again.
docs/ablations.md and the table of shared layers in docs/parameters.md are written from it (--write-only runs
nothing).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm import files  # noqa: E402
from scripts.experiments.ablation_cases import (  # noqa: E402
    CASES,
    CORPORA,
    FIXED_MODEL,
    FIXED_SETTINGS,
    MODEL,
    digest,
    train_settings,
)
from scripts.experiments.ablation_page import with_sharing_table, write_page  # noqa: E402

RESULTS = ROOT / "scripts" / "experiments" / "ablations.jsonl"
PAGE, PARAMETERS_PAGE = ROOT / "docs" / "ablations.md", ROOT / "docs" / "parameters.md"


def main() -> int:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="tinyshakespeare, for the corpus of characters")
    parser.add_argument("--cases", nargs="+", choices=CASES, metavar="NAME", default=list(CASES))
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=list(CORPORA))
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, a thread each")
    parser.add_argument("--write-only", action="store_true")
    options = parser.parse_args()
    if min(options.seeds, options.jobs) < 1:
        print("error: --seeds, --jobs: expected at least 1", file=sys.stderr)
        return 2
    if not options.write_only:
        if options.data is None or not options.data.is_file():
            print("error: --data: no such file, expected tinyshakespeare", file=sys.stderr)
            return 2
        run_missing(options)
    rows = read_results()
    write_page(PAGE, rows)
    page = PARAMETERS_PAGE.read_text(encoding="utf-8")
    files.write_bytes(PARAMETERS_PAGE, with_sharing_table(page, rows).encode())
    return 0


def run_missing(options: argparse.Namespace) -> None:
    """Train what has no line yet, each in one of a few processes; append its line when it ends."""
    present = {(row["case"], row["corpus"], row["seed"]) for row in read_results()}
    runs = [
        {"case": name, "corpus": corpus, "seed": seed, "data": str(options.data.resolve())}
        for seed in range(options.seeds)
        for corpus in options.corpora
        for name in options.cases
        if corpus in CASES[name].corpora and (name, corpus, seed) not in present
    ]
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for number, row in enumerate(pool.imap_unordered(_run, runs), start=1):
            if row["stopped_because"].startswith("SIG"):
                raise SystemExit(f"error: a run was stopped by {row['stopped_because']}")
            with RESULTS.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            print(f"{number}/{len(runs)} {row}", file=sys.stderr, flush=True)


def _run(each: dict[str, Any]) -> dict[str, Any]:
    with open(os.devnull, "w", encoding="utf-8") as nothing, contextlib.redirect_stderr(nothing):
        return run(**each)


def run(case: str, corpus: str, seed: int, data: str) -> dict[str, Any]:
    """Train one case; its result."""
    from minilm.model.transformer import Transformer
    from minilm.training import setup
    from minilm.training.train import train
    from scripts.experiments import variants
    from scripts.tools.excerpt import write_excerpt

    chosen, text = CASES[case], CORPORA[corpus]
    setup.Transformer = getattr(variants, chosen.variant) if chosen.variant else Transformer  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        source = "stdlib" if corpus == "stdlib" else data
        part = write_excerpt(source, Path(folder), first=text.characters)
        begin = time.process_time()
        outcome = train(
            "nano",
            data=part,
            run_dir=Path(folder) / "run",
            tokenizer=text.tokenizer,
            vocab_size=text.vocab_size,
            model=FIXED_MODEL | MODEL | chosen.model,
            settings=FIXED_SETTINGS | train_settings(case, corpus) | {"seed": seed},
        )
        cpu_seconds = time.process_time() - begin
    summary = outcome.summary
    return {
        "case": case,
        "corpus": corpus,
        "settings": digest(case, corpus),
        "seed": seed,
        "loss": round(summary["best_val_loss"], 5),
        "bits_per_byte": round(summary["best_val_bits_per_byte"], 5),
        "steps": summary["steps"],
        "tokens": summary["tokens"],
        "parameters": summary["parameters"],
        "cpu_seconds": round(cpu_seconds, 1),
        "stopped_because": summary["stopped_because"],
    }


def read_results() -> list[dict[str, Any]]:
    """The lines of scripts/experiments/ablations.jsonl that were made with the settings of now."""
    if not RESULTS.is_file():
        return []
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    return [
        row
        for row in rows
        if row["case"] in CASES and row["settings"] == digest(row["case"], row["corpus"])
    ]


if __name__ == "__main__":
    sys.exit(main())
