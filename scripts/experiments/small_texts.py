"""python scripts/experiments/small_texts.py --data FILE: how often to read a small text, with what dropout.

Trains `nano` on the beginning of a text, for several numbers of epochs and rates of dropout. Each run is a
line of scripts/experiments/small_texts.jsonl; those that are there are not run again. Writes the table in
docs/training.md.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm.config.presets import find_preset  # noqa: E402
from minilm.training.text_size import step_tokens  # noqa: E402
from minilm.training.train import train  # noqa: E402
from scripts.experiments.training_page import text_option, write_table  # noqa: E402

RESULTS = Path(__file__).with_name("small_texts.jsonl")
# Tokenizer, characters of text, epochs.
CASES = (
    *(("bpe", 30_000, epochs) for epochs in (2, 4, 8)),
    *(("bpe", 120_000, epochs) for epochs in (2, 4, 8)),
    *(("bpe", 500_000, epochs) for epochs in (2, 4)),
    *(("byte", 30_000, epochs) for epochs in (4, 8, 12)),
    *(("byte", 120_000, epochs) for epochs in (4, 8)),
)
DROPOUTS = (0.0, 0.1)


def main() -> int:
    """Run what is missing, then write the table."""
    data = text_option(__doc__ or "")
    text = data.read_text(encoding="utf-8")
    results: dict[tuple[str, int, int, float], float] = {}
    if RESULTS.exists():
        for line in RESULTS.read_text(encoding="utf-8").splitlines():
            tokenizer, characters, epochs, dropout, loss = json.loads(line)
            results[tokenizer, characters, epochs, dropout] = loss
    rows = [
        "| Tokenizer | characters | epochs | dropout 0 | dropout 0.1 |",
        "|---|---|---|---|---|",
    ]
    for tokenizer, characters, epochs in CASES:
        for dropout in DROPOUTS:
            case = tokenizer, characters, epochs, dropout
            if case not in results:
                results[case] = bits_per_byte(text[:characters], tokenizer, epochs, dropout)
                with RESULTS.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps([*case, results[case]]) + "\n")
        losses = [results[tokenizer, characters, epochs, dropout] for dropout in DROPOUTS]
        cells = " | ".join(f"{loss:.3f}" for loss in losses)
        rows.append(f"| {tokenizer} | {characters:,} | {epochs} | {cells} |")
    write_table("small texts", "\n".join(rows) + "\n")
    return 0


def bits_per_byte(text: str, tokenizer: str, epochs: int, dropout: float) -> float:
    """The best validation loss of `nano` after so many passes through nine tenths of ``text``."""
    preset = find_preset("nano")
    tokens_per_step = step_tokens(preset.train_config(), preset.model_config())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(text, encoding="utf-8")

        def run(name: str, steps: int) -> dict[str, Any]:
            settings = {
                "max_steps": steps,
                "eval_every": max(1, steps // 20),
                "eval_tokens": 0,
                "early_stopping": 0,
                "sample_tokens": 0,
                "device": "cpu",
            }
            outcome = train(
                data=str(path),
                run_dir=Path(folder) / name,
                tokenizer=tokenizer,
                model={"dropout": dropout},
                settings=settings,
                cache=Path(folder) / "cache",
            )
            return outcome.summary

        tokens = run("measure", 1)["data"]["train_tokens"]
        return run("run", max(1, round(epochs * tokens / tokens_per_step)))[
            "best_val_bits_per_byte"
        ]


if __name__ == "__main__":
    sys.exit(main())
