"""python scripts/experiments/forecasts.py --data FILE: the forecast of a run against what was measured.

Trains runs, and each again with what its forecast speaks of: twice the steps, fewer steps, twice the layers,
twice the text, dropout. Each comparison is a line of scripts/experiments/forecasts.jsonl; runs that are there
are not trained again. Writes the table in docs/training.md.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import numpy as np  # noqa: E402

from minilm.runs.files import METRICS  # noqa: E402
from minilm.runs.forecast import Forecast, forecast  # noqa: E402
from minilm.runs.logs import read_points  # noqa: E402
from minilm.text.corpora import open_corpus  # noqa: E402
from minilm.training.train import train  # noqa: E402
from scripts.experiments.training_page import text_option, write_table  # noqa: E402

RESULTS = Path(__file__).with_name("forecasts.jsonl")
STEPS = 200


@dataclass(frozen=True)
class Run:
    """A run, and what is changed in it to see whether its forecast comes true.

    ``is_fitted``: whether the constants of the rules were set on it. Of the text, ``characters`` are for
    training, and a tenth of that, from 10,000 to 50,000, for validation.
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
        return max(10_000, min(50_000, self.characters // 10))


SOURCES = {
    "shakespeare": "tinyshakespeare",
    "stdlib": "the library",
    "topics": "Python's help",
}
RUNS = (
    Run("shakespeare", "char", None, 1_000_000, is_fitted=True),
    Run("shakespeare", "char", None, 20_000, is_fitted=True),
    Run("stdlib", "bpe", 512, 60_000, is_fitted=True),
    Run("topics", "bpe", 512, 40_000, is_fitted=True),
    Run("shakespeare", "bpe", 512, 100_000),
    Run("stdlib", "char", None, 50_000),
    Run("stdlib", "bpe", 1024, 150_000),
    Run("topics", "bpe", 1024, 80_000),
    Run("topics", "char", None, 100_000),
    Run("shakespeare", "char", None, 12_000),
    Run("stdlib", "byte", None, 1_000_000),
    Run("shakespeare", "bpe", 1024, 450_000),
    Run("stdlib", "bpe", 512, 30_000),
    Run("stdlib", "bpe", 1024, 1_500_000, num_layers=2, d_model=64),
    Run("topics", "char", None, 25_000),
    Run("shakespeare", "char", None, 40_000, num_layers=6, d_model=128),
)
CHANGES = {
    "steps": "twice the steps",
    "fewer_steps": "fewer steps",
    "parameters": "twice the layers",
    "data": "twice the text",
    "regularisation": "dropout 0.1",
}


def main() -> int:
    """Train what is missing, then write the table."""
    data = text_option(__doc__ or "")
    stored = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    results = [json.loads(line) for line in stored]
    with tempfile.TemporaryDirectory() as folder:
        texts = read_texts(data, Path(folder))
        for run in RUNS:
            if any(result["run"] == run.what for result in results):
                continue
            comparisons = list(compare(run, texts[run.source]))
            results += comparisons
            with RESULTS.open("a", encoding="utf-8") as stream:
                stream.writelines(json.dumps(each) + "\n" for each in comparisons)
    write_table("forecasts", table(results))
    return 0


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: errors over the runs that no constant was set on, then every comparison."""
    lines = ["| Change | runs | mean fall | mean error of the forecast |", "|---|---|---|---|"]
    for name, words in CHANGES.items():
        held_out = [
            (each["forecast"], each["measured"])
            for each in results
            if each["change"] == name and not each["is_fitted"] and each["forecast"] is not None
        ]
        if held_out:
            falls = np.array(held_out)
            error = np.abs(falls[:, 0] - falls[:, 1]).mean()
            lines.append(f"| {words} | {len(held_out)} | {falls[:, 1].mean():.3f} | {error:.3f} |")
    lines += ["", "| Run | change | forecast | measured |", "|---|---|---|---|"]
    for each in results:
        said = "nothing" if each["forecast"] is None else f"{-each['forecast']:+.3f}"
        what = f"{each['run']}{' (rules set on it)' if each['is_fitted'] else ''}"
        lines.append(f"| {what} | {CHANGES[each['change']]} | {said} | {-each['measured']:+.3f} |")
    return "\n".join(lines) + "\n"


def read_texts(data: Path, folder: Path) -> dict[str, str]:
    """The texts by their names in SOURCES."""
    import pydoc_data.topics

    stdlib = open_corpus("stdlib", cache=folder)
    topics: dict[str, str] = pydoc_data.topics.topics
    return {
        "shakespeare": data.read_text(encoding="utf-8"),
        "stdlib": "".join(chunk.text for chunk in stdlib.chunks()),
        "topics": "\n\n".join(topics[name] for name in sorted(topics)),
    }


def compare(run: Run, text: str) -> Iterator[dict[str, Any]]:
    """The fall of the validation loss with each change that there is text for: forecast and measured."""
    base, predicted = trained(run, text)
    if predicted is None:
        raise SystemExit(f"error: {run.what}: no forecast")
    changes: dict[str, dict[str, Any]] = {
        "steps": {"steps": 2 * STEPS},
        "parameters": {"num_layers": 2 * run.num_layers},
        "data": {"times": 2},
        "regularisation": {"dropout": 0.1},
    }
    if predicted.fewer_steps is not None:
        changes = {"fewer_steps": {"steps": predicted.best_steps}} | changes
        del changes["steps"], changes["parameters"]
    for name, change in changes.items():
        if name == "data" and 2 * run.characters + run.validation_characters > len(text):
            continue
        loss, _ = trained(run, text, **change)
        yield {
            "run": run.what,
            "is_fitted": run.is_fitted,
            "change": name,
            "forecast": getattr(predicted, name),
            "measured": base - loss,
        }


def trained(
    run: Run,
    text: str,
    *,
    steps: int = STEPS,
    times: int = 1,
    dropout: float = 0.0,
    num_layers: int | None = None,
) -> tuple[float, Forecast | None]:
    """Best validation loss, in nats a token, and the forecast, of one run.

    The validation text stays the same with ``times`` the text: what is added comes before it.
    """
    end = min(2 * run.characters + run.validation_characters, len(text))
    part = text[end - times * run.characters - run.validation_characters : end]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(part, encoding="utf-8")
        outcome = train(
            "nano",
            data=str(path),
            run_dir=Path(folder) / "run",
            tokenizer=run.tokenizer,
            vocab_size=run.vocab_size,
            model={
                "context_length": 128,
                "num_layers": num_layers or run.num_layers,
                "d_model": run.d_model,
                "num_heads": run.d_model // 32,
                "dropout": dropout,
            },
            settings={
                "max_steps": steps,
                "eval_every": max(1, steps // 10),
                "eval_tokens": 0,
                "early_stopping": 0,
                "val_fraction": run.validation_characters / len(part),
                "sample_tokens": 0,
                "device": "cpu",
            },
            cache=Path(folder) / "cache",
        )
        summary = outcome.summary
        if outcome.stopped_because != "max_steps":
            raise SystemExit(f"error: a run was stopped by {outcome.stopped_because}")
        predicted = forecast(
            read_points(Path(folder) / "run" / METRICS),
            parameters=summary["parameters"],
            train_tokens=summary["data"]["train_tokens"],
        )
    return summary["best_val_loss"], predicted


if __name__ == "__main__":
    sys.exit(main())
