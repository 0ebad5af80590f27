"""The history of a run folder, read back for its page."""

from __future__ import annotations

from pathlib import Path

from minilm import run
from minilm.render.history import RunHistory
from minilm.training.metrics import read_points, read_samples
from minilm.training.verdict import findings, overfitting_since


def read_history(run_dir: Path) -> RunHistory:
    """Curves, samples and findings. Raises FormatError for logs that are no logs."""
    metrics = read_points(run_dir / run.METRICS)
    samples = read_samples(run_dir / run.SAMPLES)
    found = findings(metrics, run.read_summary(run_dir))
    return RunHistory(metrics, samples, found, overfitting_since(metrics))
