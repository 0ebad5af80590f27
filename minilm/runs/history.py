"""The history of a run folder, read back for its page: curves, samples, findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minilm.runs import files as run_files
from minilm.runs.attention_maps import AttentionMaps, read_attention_maps
from minilm.runs.diagnosis import findings, overfitting_since
from minilm.runs.logs import read_parameters, read_points, read_samples


@dataclass(frozen=True)
class RunHistory:
    """``metrics`` are the lines of metrics.jsonl, ``samples`` those of samples.jsonl, ``findings`` what
    the curves say, a sentence each; ``overfitting_from`` is the evaluation after which validation
    loss rose; ``summary`` is summary.json, ``parameters`` are the lines of parameters.jsonl,
    ``attention`` is attention.json.
    """

    metrics: Sequence[Mapping[str, Any]] = ()
    samples: Sequence[Mapping[str, Any]] = ()
    findings: Sequence[str] = ()
    overfitting_from: Mapping[str, Any] | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    parameters: Sequence[Mapping[str, Any]] = ()
    attention: AttentionMaps | None = None


def read_history(run_dir: Path) -> RunHistory:
    """Curves, samples and findings. Raises FormatError for logs that are no logs."""
    metrics = read_points(run_dir / run_files.METRICS)
    samples = read_samples(run_dir / run_files.SAMPLES)
    summary = run_files.read_summary(run_dir)
    sentences = findings(metrics, summary)
    return RunHistory(
        metrics,
        samples,
        sentences,
        overfitting_since(metrics),
        summary,
        parameters=read_parameters(run_dir / run_files.PARAMETERS),
        attention=read_attention_maps(run_dir),
    )
