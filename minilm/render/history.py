"""How a run went, as a page shows it beside the inspector's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunHistory:
    """``metrics`` are the lines of metrics.jsonl, ``samples`` those of samples.jsonl, ``findings`` what
    the curves say, a sentence each."""

    metrics: Sequence[Mapping[str, Any]] = ()
    samples: Sequence[Mapping[str, Any]] = ()
    findings: Sequence[str] = ()

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The evaluation with the lowest validation loss: after it, the run has learned by heart."""
        evaluations = [line for line in self.metrics if "val_loss" in line]
        return min(evaluations, key=lambda line: float(line["val_loss"]), default=None)
