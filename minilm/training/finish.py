"""How a run ends: its summary.json, its report.html, and what the caller gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm import files
from minilm.inspection import extras
from minilm.inspection.inspector import Inspection, inspect_with_sources
from minilm.inspection.report import Report
from minilm.inspection.weight_maps import WeightMap, weight_maps
from minilm.render.html import page
from minilm.runs import files as run_files
from minilm.runs.attention_maps import write_attention_maps
from minilm.runs.history import read_history
from minilm.runs.stop_reason import StopReason
from minilm.units import counted, format_seconds
from minilm.version import __version__

if TYPE_CHECKING:
    from minilm.training.trainer import Trainer

MOST_PARAMETERS_READ = 20_000_000
TARGETS = 1  # of the arrays of a batch
_WITHOUT_PAGE = (StopReason.NON_FINITE_LOSS, StopReason.PRUNED)


@dataclass(frozen=True, repr=False)
class Outcome:
    """Where the run is, why it stopped, its summary.json, and the inspection that report.html shows.

    ``report`` is None where the run was interrupted by a signal, diverged, or was a trial that was pruned:
    there is no page then. Nor is there one in a process of several that is not the main one.
    """

    run_dir: Path
    stopped_because: StopReason
    summary: dict[str, Any]
    report: Report | None

    def __repr__(self) -> str:
        loss, bits = (self.summary.get(f"best_val_{name}") for name in ("loss", "bits_per_byte"))
        best = "" if loss is None else f", best validation loss {loss:.4f} ({bits:.3f} bits a byte)"
        return (
            f"<{self.run_dir}: {counted(self.summary['steps'], 'step')} in "
            f"{format_seconds(self.summary['seconds'])}{best}, stopped by {self.stopped_because}>"
        )


def finish(
    trainer: Trainer, reason: StopReason, *, summary_before: Mapping[str, Any] | None = None
) -> Outcome:
    """Write summary.json, then report.html, of a run that stopped for ``reason``.

    ``summary_before``: the summary.json that a resumed run had.
    """
    run_dir, summary = trainer.spec.run_dir, _summary(trainer, reason, summary_before or {})
    if not trainer.world.is_main:
        return Outcome(run_dir, reason, summary, None)
    has_page = reason.signum is None and reason not in _WITHOUT_PAGE
    # Before the summary, with which a run is finished: of the page alone it is seen that it lacks.
    if has_page and summary["parameters"] <= MOST_PARAMETERS_READ:
        _write_attention(trainer)
    files.write_json(run_dir / run_files.SUMMARY, summary)
    report = None
    if has_page:
        inspection = inspect_with_sources(str(run_dir))
        report = inspection.report
        _write_page(run_dir, inspection)
    return Outcome(run_dir, reason, summary, report)


def finished_run(run_dir: Path) -> Outcome:
    """The outcome of a run that reached its end. torch is not needed.

    Where the end was interrupted before the page was written, it is written now.
    """
    summary = run_files.read_summary(run_dir)
    inspection = inspect_with_sources(str(run_dir), live=False)
    if not (run_dir / run_files.REPORT).exists():
        _write_page(run_dir, inspection)
    return Outcome(run_dir, StopReason(summary["stopped_because"]), summary, inspection.report)


def _summary(
    trainer: Trainer, reason: StopReason, summary_before: Mapping[str, Any]
) -> dict[str, Any]:
    import torch

    from minilm.transforms.quantize import parameter_count

    spec, progress, throughput = trainer.spec, trainer.progress, trainer.throughput
    best, total = trainer.best(), parameter_count(spec.model)
    trained = parameter_count(spec.model, trainable=True)
    template = spec.source.chat_template
    federation = spec.began_with.get("federation")
    rate = throughput.average(progress.tokens)
    if not rate:  # nothing was left to train: the rate is what it was
        before = summary_before.get("tokens_per_second")
        rate = float(before) if isinstance(before, (int, float)) else 0.0
    return {
        "steps": progress.step,
        "tokens": progress.tokens,
        "seconds": round(throughput.seconds(), 3),
        "best_val_loss": best.loss if best else None,
        "best_val_bits_per_byte": best.bits_per_byte if best else None,
        "best_val_tokens": best.tokens if best else None,
        "best_step": progress.best_step,
        "stopped_because": reason,
        "parameters": total,
        **({"trainable": trained} if trained < total else {}),
        "device": spec.runtime.device.type,
        "dtype": spec.runtime.dtype_name,
        "tokens_per_second": round(rate, 1),
        "model_flops_utilisation": throughput.utilisation(rate),
        "peak_flops": throughput.peak,
        "energy_joules": throughput.joules(),
        "loss_spikes": progress.loss_spikes,
        "data": {
            "source": spec.source.absolute_name(),
            "bytes": spec.dataset.bytes,
            "sha256": spec.dataset.sha256,
            "train_tokens": spec.dataset.train_tokens,
            "val_tokens": spec.dataset.val_tokens,
            **spec.dataset.description,
            **({"chat_template": template} if template else {}),
        },
        **({"federation": federation} if federation else {}),
        "minilm": __version__,
        "torch": torch.__version__,
        "seed": spec.config.seed,
        "tuned": dict(spec.runtime.tuned),
        "val_dtype": spec.runtime.dtype_name,  # of best_val_loss: a dtype moves its last digits
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _write_attention(trainer: Trainer) -> None:
    """attention.json: of the weights that the run leaves, over the beginning of its validation text."""
    from minilm.checkpoint import load
    from minilm.generation.attention_maps import attention_maps

    spec = trainer.spec
    length = spec.dataset.row_length(spec.model.config.context_length)
    batch = next(iter(spec.dataset.validation_batches(length, 1, 0)))
    row = [array for number, array in enumerate(batch.arrays) if number != TARGETS]
    model, tokenizer = load(spec.run_dir)
    maps = attention_maps(model, tokenizer, row, trainer.progress.best_step)
    write_attention_maps(spec.run_dir, maps)


def _write_page(run_dir: Path, inspection: Inspection) -> None:
    """report.html, with statistics and maps of the weights where reading them takes some second at most."""
    report = inspection.report
    weights: Sequence[WeightMap] = ()
    if report.parameters.total <= MOST_PARAMETERS_READ:
        report = extras.with_statistics(inspection, None)
        weights = weight_maps(inspection)
    text = page(report, history=read_history(run_dir), weights=weights)
    files.write_bytes(run_dir / run_files.REPORT, text.encode())
