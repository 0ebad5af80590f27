"""How a run went, as a page shows it beside the inspector's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunHistory:
    """``metrics`` are the lines of metrics.jsonl, ``samples`` those of samples.jsonl, ``findings`` what
    the curves say, a sentence each; ``turned`` is the evaluation after which validation loss rose."""

    metrics: Sequence[Mapping[str, Any]] = ()
    samples: Sequence[Mapping[str, Any]] = ()
    findings: Sequence[str] = ()
    turned: Mapping[str, Any] | None = None
