"""What a transform changed: parameters, bytes on disk, loss and speed of a model, before and after.

Every transform prints this one table and records it in the summary.json of what it writes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from minilm.checkpoint import load
from minilm.generation.decoder import make_decoder
from minilm.model.transformer import Transformer
from minilm.operations.evaluate import Evaluation, evaluate_model
from minilm.render.document import Column, Table
from minilm.runs import files as run_files
from minilm.training.evaluation_text import EvaluationText
from minilm.training.runtime import Runtime
from minilm.transforms.quantize import QuantizedLinear, parameter_count
from minilm.units import format_bytes, format_decimal

TIMED_TOKENS, TIMED_TEXTS = 64, 3
TIMED_SECONDS = 3.0  # a text that takes longer is not repeated


@dataclass(frozen=True)
class Measurement:
    """A model as it is stored and as it runs.

    ``parameters`` counts each of the model once, however it is packed; ``nonzero`` those that are not 0.
    ``bytes`` are those of the files of weights. ``evaluation`` is None where there was no text.
    """

    parameters: int
    trainable: int
    nonzero: int
    bytes: int
    tokens_per_second: float
    evaluation: Evaluation | None


@dataclass(frozen=True)
class Comparison:
    """The same measurements of a model and of what was made of it."""

    before: Measurement
    after: Measurement

    def to_dict(self) -> dict[str, Any]:
        """As summary.json has it."""
        return {"before": asdict(self.before), "after": asdict(self.after)}

    def table(self) -> Table:
        """One row for each measurement."""
        before, after = self.before, self.after
        trainable = []
        if before.trainable or after.trainable:  # else both are for use alone
            trainable = [_row("trainable", before.trainable, after.trainable, "{:,}".format)]
        rows = [
            _row("parameters", before.parameters, after.parameters, "{:,}".format),
            _row("not zero", before.nonzero, after.nonzero, "{:,}".format),
            *trainable,
            _row("bytes of weights", before.bytes, after.bytes, format_bytes),
        ]
        if before.evaluation is not None and after.evaluation is not None:
            for title, name in (
                ("loss, nats a token", "loss"),
                ("bits a byte", "bits_per_byte"),
                ("perplexity", "perplexity"),
            ):
                old, new = (getattr(each.evaluation, name) for each in (before, after))
                rows.append(_row(title, old, new, lambda value: format_decimal(value, 4)))
        rows.append(
            _row(
                "tokens/s generated",
                before.tokens_per_second,
                after.tokens_per_second,
                "{:,.0f}".format,
            )
        )
        columns = (
            Column(""),
            *(Column(title, "number") for title in ("before", "after", "change")),
        )
        return Table(columns, tuple(rows))

    def note(self) -> str:
        """Which text the loss is of, or why there is none."""
        evaluation = self.after.evaluation
        if evaluation is None:
            return "no loss: the model has no validation split of its own, and no --data was given"
        return f"loss {evaluation.extent}"


def _row(
    title: str, before: float, after: float, text: Callable[[Any], str]
) -> tuple[str, str, str, str]:
    change = (
        ""
        if before == 0
        else "="
        if after == before
        else f"{_percent(100 * (after / before - 1))}%"
    )
    if change in ("+0.00%", "-0.00%"):
        change = f"{change[0]}<0.01%"
    return title, text(before), text(after), change


def _percent(change: float) -> str:
    return f"{change:+.2f}" if abs(change) < 1e6 else f"{change:+.3g}"


def measure(
    model: Transformer,
    weights: Sequence[Path],
    text: EvaluationText | None,
    runtime: Runtime,
) -> Measurement:
    """Measure a loaded model, whose files of weights are ``weights``."""
    own = list(model.parameters())
    packed = [layer for layer in model.modules() if isinstance(layer, QuantizedLinear)]
    return Measurement(
        parameters=parameter_count(model),
        trainable=parameter_count(model, trainable=True),
        nonzero=sum(int(p.count_nonzero()) for p in own)
        + sum(int(layer.dequantized().count_nonzero()) for layer in packed),
        bytes=sum(path.stat().st_size for path in weights),
        tokens_per_second=generation_rate(model),
        evaluation=None if text is None else evaluate_model(model, text, runtime),
    )


def measure_run(
    run: Path, text: EvaluationText | None, runtime: Runtime, weights: Sequence[Path] | None = None
) -> Measurement:
    """Measure a run as it is loaded; ``weights`` are the files that it was made of, if not its own."""
    model = load(run, trainable=True, device=str(runtime.device)).model
    return measure(model, weights or [run / run_files.WEIGHTS], text, runtime)


@torch.inference_mode()
def generation_rate(model: Transformer) -> float:
    """Tokens a second of a text, greedily, with the cache: the median of a few, or one that takes long."""
    was_training = model.training
    decoder = make_decoder(model.eval(), tune=True)
    count = min(TIMED_TOKENS, model.config.context_length)
    rates = []
    for _ in range(TIMED_TEXTS):
        cache = decoder.new_cache(1, count)
        token = torch.zeros(1, 1, dtype=torch.long, device=decoder.device)
        begin = time.perf_counter()
        for _ in range(count):
            token = decoder(token, cache).argmax(-1, keepdim=True)
        int(token)  # waits for a GPU
        seconds = time.perf_counter() - begin
        rates.append(count / seconds)
        if seconds > TIMED_SECONDS:
            break
    model.train(was_training)
    return statistics.median(rates)
