"""python scripts/experiments/parameters.py RUN: what each way of changing parameters costs.

Each case of `parameter_cases.py` is made of RUN, a trained `nano`, and evaluated on its whole validation
split. It is a line of scripts/experiments/parameters.jsonl; cases that are there are not run again. Writes
the tables between the marks in docs/parameters.md, and docs/images/loss-against-bytes.png where there is a
Chromium to draw it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm.checkpoint import load  # noqa: E402
from minilm.cli.entry import run_command  # noqa: E402
from minilm.operations.evaluate import evaluate  # noqa: E402
from minilm.operations.prune import prune  # noqa: E402
from minilm.operations.quantize import quantize  # noqa: E402
from minilm.operations.share import share  # noqa: E402
from minilm.training.train import train  # noqa: E402
from minilm.transforms.quantize import QuantizedLinear  # noqa: E402
from scripts.experiments.parameter_cases import CASES, Case  # noqa: E402
from scripts.experiments.parameters_page import write_pages  # noqa: E402

RESULTS = Path(__file__).with_name("parameters.jsonl")
SETTINGS = {"device": "cpu", "compile": "off", "sample_tokens": 0}


def main() -> int:
    """Run what is missing, then write tables and picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a trained `nano`")
    options = parser.parse_args()
    results = read_results()
    for case in CASES:
        if case.name not in results:
            with tempfile.TemporaryDirectory() as folder:
                results[case.name] = measured(case, options.run, Path(folder))
            with RESULTS.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"case": case.name, **results[case.name]}) + "\n")
            print(case.name, results[case.name], flush=True)
    write_pages(results)
    return 0


def read_results() -> dict[str, dict[str, Any]]:
    """The lines of the file, by the name of the case."""
    lines = RESULTS.read_text("utf-8").splitlines() if RESULTS.is_file() else []
    rows = [json.loads(line) for line in lines]
    return {row.pop("case"): row for row in rows}


def measured(case: Case, run: Path, folder: Path) -> dict[str, Any]:
    """Parameters, those that are not zero, bytes as stored and with zeros left out, loss."""
    model, sparse = run, None
    for number, (tool, options) in enumerate(case.steps):
        out = folder / str(number)
        sparse = _TOOLS[tool](model, out, options)
        model = out
    evaluation = evaluate(model, device="cpu")
    loaded = load(model, trainable=True).model
    packed = [layer for layer in loaded.modules() if isinstance(layer, QuantizedLinear)]
    weights = [*loaded.parameters(), *(layer.dequantized() for layer in packed)]
    return {
        "parameters": sum(weight.numel() for weight in weights),
        "nonzero": sum(int(weight.count_nonzero()) for weight in weights),
        "bytes": (model / "model.safetensors").stat().st_size,
        "sparse_bytes": sparse,
        "loss": evaluation.loss,
        "perplexity": evaluation.perplexity,
        "tokens": evaluation.tokens,
        "dtype": evaluation.dtype,
    }


def _prune(source: Path, out: Path, options: Mapping[str, Any]) -> int | None:
    return prune(source, out, device="cpu", **options).sparse_bytes


def _quantize(source: Path, out: Path, options: Mapping[str, Any]) -> None:
    quantize(source, out, device="cpu", **options)


def _share(source: Path, out: Path, options: Mapping[str, Any]) -> None:
    share(source, out=out, device="cpu", **options)


def _fine_tune(source: Path, out: Path, options: Mapping[str, Any]) -> None:
    train(data="stdlib", init_from=source, run_dir=out, settings={**SETTINGS, **options})


def _train(source: Path, out: Path, options: Mapping[str, Any]) -> None:
    train("nano", data="stdlib", run_dir=out, model=options, settings=SETTINGS)


_TOOLS = {
    "prune": _prune,
    "quantize": _quantize,
    "share": _share,
    "fine-tune": _fine_tune,
    "train": _train,
}


if __name__ == "__main__":
    sys.exit(run_command(main))
