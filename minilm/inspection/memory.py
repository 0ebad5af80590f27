"""What a model costs in bytes, put together for a report."""

from __future__ import annotations

from typing import Any

from minilm.config import ModelConfig
from minilm.costs.memory import kv_cache_bytes, training_bytes, weight_bytes
from minilm.inspection.report import Parameters
from minilm.ledger.layout import Layout

USUAL_CONTEXT = 2048


def priced_context(layout: Layout, context: int | None) -> int:
    """The context asked for, else the model's own, else 2048 tokens where it has none."""
    return context or layout.context_length or USUAL_CONTEXT


def memory(
    parameters: Parameters,
    layout: Layout | None,
    config: ModelConfig | None,
    *,
    stored: int | None,
    context: int | None,
    batch: int,
) -> dict[str, Any]:
    """Bytes of weights, training state, KV cache and activations; ``stored`` is what a file takes.

    Activations are exact for a minilm ``config`` in float32 on a CPU, else estimated.
    """
    weights = {**weight_bytes(parameters.total), "stored": stored}
    cache = activations = None
    if layout is not None:
        length = priced_context(layout, context)
        cache = {
            "context": length,
            "batch": batch,
            **kv_cache_bytes(layout, context=length, batch=batch),
        }
        activations = _activations(layout, config, batch=batch, context=length)
    return {
        "weights": weights,
        "training": training_bytes(parameters.trainable, layout=layout),
        "kv_cache": cache,
        "activations": activations,
    }


def _activations(
    layout: Layout, config: ModelConfig | None, *, batch: int, context: int
) -> dict[str, Any] | None:
    # Each way is imported alone: an inspection takes a quarter of a second.
    if config is not None:
        from minilm.costs.activations import activation_bytes

        return activation_bytes(config, batch=batch, context=context)
    from minilm.costs.activation_estimate import estimated_activation_bytes

    return estimated_activation_bytes(layout, batch=batch, context=context)
