"""python scripts/experiments/small_texts.py --data FILE: how often to read a small text, with what dropout.

Trains `nano` on the beginning of a text, for several numbers of epochs and rates of dropout. Each run is a
line of scripts/experiments/small_texts.jsonl; those that are there are not run again. Writes the table in
docs/training.md.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm import files  # noqa: E402
from minilm.config.presets import find_preset  # noqa: E402
from minilm.training.text_size import step_tokens  # noqa: E402
from minilm.training.train import train  # noqa: E402

RESULTS = Path(__file__).with_name("small_texts.jsonl")
PAGE = ROOT / "docs" / "training.md"
MARKED = re.compile(r"(<!-- small texts -->\n).*?(<!-- end -->)", re.DOTALL)
CHARACTERS, EPOCHS, DROPOUTS = (30_000, 120_000, 500_000), (2, 4, 8), (0.0, 0.1, 0.2)


def main() -> int:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="tinyshakespeare")
    options = parser.parse_args()
    if not options.data.is_file():
        print(f"error: --data: {options.data}: no such file", file=sys.stderr)
        return 2
    text = options.data.read_text(encoding="utf-8")
    results = {}
    if RESULTS.exists():
        for line in RESULTS.read_text(encoding="utf-8").splitlines():
            result = json.loads(line)
            results[result["characters"], result["epochs"], result["dropout"]] = result["loss"]
    for characters in CHARACTERS:
        for epochs in EPOCHS:
            for dropout in DROPOUTS:
                key = characters, epochs, dropout
                if key not in results:
                    results[key] = bits_per_byte(text[:characters], epochs, dropout)
                    line = dict(zip(("characters", "epochs", "dropout"), key, strict=True))
                    with RESULTS.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(line | {"loss": results[key]}) + "\n")
    rows = [
        "| Characters | epochs | " + " | ".join(f"dropout {rate:g}" for rate in DROPOUTS) + " |",
        "|---|---|" + "---|" * len(DROPOUTS),
    ]
    for characters in CHARACTERS:
        for epochs in EPOCHS:
            cells = [f"{results[characters, epochs, dropout]:.3f}" for dropout in DROPOUTS]
            rows.append(f"| {characters:,} | {epochs} | " + " | ".join(cells) + " |")
    table = "\n".join(rows) + "\n"
    page = MARKED.sub(lambda part: part[1] + table + part[2], PAGE.read_text(encoding="utf-8"))
    files.write_bytes(PAGE, page.encode())
    return 0


def bits_per_byte(text: str, epochs: int, dropout: float) -> float:
    """The best validation loss of `nano` after so many passes through nine tenths of ``text``."""
    preset = find_preset("nano")
    tokens_per_step = step_tokens(preset.train_config(), preset.model_config())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(text, encoding="utf-8")

        def run(name: str, steps: int) -> dict[str, float]:
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
                model={"dropout": dropout},
                settings=settings,
                cache=Path(folder) / "cache",
            )
            return outcome.summary

        tokens = run("measure", 1)["data"]["train_tokens"]  # type: ignore[index]
        return run("run", max(1, round(epochs * tokens / tokens_per_step)))[
            "best_val_bits_per_byte"
        ]


if __name__ == "__main__":
    sys.exit(main())
