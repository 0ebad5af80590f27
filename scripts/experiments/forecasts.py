"""python scripts/experiments/forecasts.py --data FILE: the forecast of a run beside what was measured.

Trains runs, and each again with twice the steps, the layers, the text, or with dropout; writes the table
in docs/training.md.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm import files  # noqa: E402
from minilm.runs.files import METRICS  # noqa: E402
from minilm.runs.forecast import forecast  # noqa: E402
from minilm.runs.logs import read_points  # noqa: E402
from minilm.training.train import train  # noqa: E402
from scripts.tools.excerpt import write_excerpt  # noqa: E402

PAGE = ROOT / "docs" / "training.md"
MARKED = re.compile(r"(<!-- forecasts -->\n).*?(<!-- end -->)", re.DOTALL)
RESULTS = Path(__file__).with_name("forecasts.jsonl")
STEPS = 400


@dataclass(frozen=True)
class Run:
    """A run, and what is changed in it to see whether its forecast comes true.

    ``is_fitted``: whether the constants of the rules were set on it. Of the text, ``characters`` are for
    training, and a tenth of that, at least 20,000, for validation.
    """

    source: str
    tokenizer: str
    vocab_size: int | None
    characters: int
    num_layers: int = 4
    d_model: int = 96
    is_fitted: bool = False

    @property
    def what(self) -> str:
        """The run in words."""
        unit = {"char": "characters", "byte": "bytes"}.get(
            self.tokenizer, f"BPE of {self.vocab_size}"
        )
        return (
            f"{self.characters:,} characters of {SOURCES[self.source]}, {unit}, "
            f"{self.num_layers} layers of {self.d_model}"
        )

    @property
    def validation_characters(self) -> int:
        """The end of the text, the same whatever is changed."""
        return max(20_000, self.characters // 10)


SOURCES = {
    "shakespeare": "tinyshakespeare",
    "stdlib": "the library",
    "topics": "Python's help",
}
RUNS = (
    Run("shakespeare", "char", None, 1_000_000, is_fitted=True),
    Run("stdlib", "bpe", 1024, 1_900_000, is_fitted=True),
    Run("shakespeare", "char", None, 50_000, is_fitted=True),
    Run("stdlib", "bpe", 512, 120_000, is_fitted=True),
    Run("topics", "bpe", 512, 60_000, is_fitted=True),
    Run("shakespeare", "bpe", 512, 180_000),
    Run("stdlib", "char", None, 100_000),
    Run("stdlib", "bpe", 1024, 250_000),
    Run("topics", "bpe", 1024, 150_000),
    Run("topics", "char", None, 150_000),
    Run("shakespeare", "char", None, 25_000),
    Run("stdlib", "byte", None, 1_000_000),
    Run("shakespeare", "bpe", 1024, 450_000),
    Run("stdlib", "bpe", 512, 60_000),
    Run("stdlib", "bpe", 1024, 1_500_000, num_layers=2, d_model=64),
    Run("topics", "char", None, 40_000),
    Run("shakespeare", "char", None, 60_000, num_layers=6, d_model=128),
)


def main() -> int:
    """Train, compare, write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="tinyshakespeare")
    options = parser.parse_args()
    if not options.data.is_file():
        print(f"error: --data: {options.data}: no such file", file=sys.stderr)
        return 2
    lines = ["| Run | change | forecast | measured |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for run in RUNS:
            loss, predicted = trained(run, options.data, Path(folder) / run.what)
            for name, change in run.changes.items():
                after, _ = trained(run, options.data, Path(folder) / f"{run.what} {name}", **change)
                lines.append(
                    f"| {run.what} | {NAMES[name]} | -{getattr(predicted, name):.3f} | {after - loss:+.3f} |"
                )
                print(lines[-1], flush=True)
    table = "\n".join(lines) + "\n"
    text = MARKED.sub(lambda part: part[1] + table + part[2], PAGE.read_text(encoding="utf-8"))
    files.write_bytes(PAGE, text.encode())
    return 0


def trained(
    run: Run, data: Path, folder: Path, *, steps: int = STEPS, times: int = 1, **model: Any
) -> tuple[float, Any]:
    """Best validation loss, in nats a token, and the forecast, of one run.

    The validation text stays the same with ``times`` the text: what is added comes before it.
    """
    folder.mkdir()
    longest = 2 * run.training_characters + run.validation_characters
    characters = times * run.training_characters + run.validation_characters
    source = "stdlib" if run.source == "stdlib" else str(data)
    part = write_excerpt(source, folder, first=longest, last=characters)
    outcome = train(
        "nano",
        data=part,
        run_dir=folder / "run",
        tokenizer=run.tokenizer,
        vocab_size=run.vocab_size,
        model=MODEL | model,
        settings={
            "max_steps": steps,
            "eval_every": steps // 8,
            "val_fraction": run.validation_characters / characters,
            "sample_tokens": 0,
            "device": "cpu",
        },
    )
    summary = outcome.summary
    if outcome.stopped_because != "max_steps":
        raise SystemExit(f"error: a run was stopped by {outcome.stopped_because}")
    predicted = forecast(
        read_points(folder / "run" / METRICS),
        parameters=summary["parameters"],
        train_tokens=summary["data"]["train_tokens"],
    )
    return summary["best_val_loss"], predicted


if __name__ == "__main__":
    sys.exit(main())
