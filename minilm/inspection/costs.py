"""What a model costs in bytes, put together for a report."""

from __future__ import annotations

from typing import Any

from minilm.inspection.report import Parameters
from minilm.inspection.sources import Source
from minilm.ledger.layout import Layout
from minilm.ledger.memory import kv_cache_bytes, training_bytes, weight_bytes

USUAL_CONTEXT = 2048


def priced_context(layout: Layout, context: int | None) -> int:
    """The context asked for, else the model's own, else 2048 tokens where it has none."""
    return context or layout.context_length or USUAL_CONTEXT


def memory(
    parameters: Parameters,
    layout: Layout | None,
    source: Source | None,
    *,
    context: int | None,
    batch: int,
) -> dict[str, Any]:
    """Bytes of weights, training state, KV cache and activations."""
    weights: dict[str, int | None] = {**weight_bytes(parameters.total), "stored": None}
    if source is not None and source.header is not None:
        weights["stored"] = source.header.data_bytes
    cache = None
    if layout is not None:
        length = priced_context(layout, context)
        cache = {
            "context": length,
            "batch": batch,
            **kv_cache_bytes(layout, context=length, batch=batch),
        }
    return {
        "weights": weights,
        "training": training_bytes(parameters.trainable),
        "kv_cache": cache,
        "activations": None,
    }
