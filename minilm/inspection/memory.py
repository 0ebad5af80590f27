"""Memory of a report: bytes of weights, training state, KV cache and activations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from minilm.architectures.minilm import layout as minilm_layout
from minilm.config import ModelConfig
from minilm.costs.memory import (
    context_or_default,
    kv_cache_bytes,
    state_bytes,
    training_bytes,
    weight_bytes,
)
from minilm.costs.trained import Trained
from minilm.costs.training_step import loaded_bytes
from minilm.dtypes import storage_bytes
from minilm.inspection.report import Parameters
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ZERO


def memory_costs(
    parameters: Parameters,
    layout: Layout | None,
    config: ModelConfig | None,
    *,
    stored_bytes: int | None,
    context: int | None,
    batch: int,
    trained: Trained,
    measure_activations: bool,
) -> dict[str, Any]:
    """Bytes of weights, training state, KV cache and activations; ``stored_bytes`` are the file's.

    Activations are exact for a minilm ``config`` in float32 on a CPU, else estimated. With
    ``measure_activations`` those of a config are measured besides, which imports torch. ``trained`` is what
    is trained of a config's model. Where nothing is a token's there is no KV cache, and no number of tokens.
    """
    cache = saved = None
    state: dict[str, Any] = {}
    if layout is not None and layout.has_tokens:
        length = context_or_default(layout, context)
        bytes_by_dtype = kv_cache_bytes(layout, context=length, batch=batch)
        cache = {"context": length, "batch": batch, **bytes_by_dtype}
        if layout.state != ZERO:
            sizes = {"batch": batch, "float32": state_bytes(layout, batch=batch)}
            state = {"recurrent_state": sizes}
        # Each is imported where it is used: start-up is a tenth of a second.
        if config is None:
            from minilm.costs.activation_estimate import estimated_activation_bytes

            saved = estimated_activation_bytes(layout, batch=batch, context=length)
        else:
            from minilm.costs.activations import activations

            forward = activations(config, batch=batch, context=length, trained=trained)
            saved = forward.to_dict()
            if measure_activations and length <= config.context_length:
                saved |= _measurement(config, trained, batch=batch, context=length)
    return {
        "weights": {**weight_bytes(parameters.total), "stored": stored_bytes},
        "training": training_bytes(
            parameters.trainable,
            # What other methods would take is told of a model without adapters.
            layout=None if layout is None or layout.trainable() < layout.count() else layout,
            frozen=_frozen_bytes(parameters, config, trained),
        ),
        "kv_cache": cache,
        **state,
        "activations": saved,
    }


def _frozen_bytes(parameters: Parameters, config: ModelConfig | None, trained: Trained) -> int:
    """Bytes of the parameters that are not trained: float32, or an adapter's base as it is packed."""
    if config is not None and trained.packing:
        return loaded_bytes(minilm_layout(config), trained.packing)
    return storage_bytes(parameters.total - parameters.trainable, "float32")


def _measurement(
    config: ModelConfig, trained: Trained, *, batch: int, context: int
) -> dict[str, Any]:
    """What autograd saves in one step, under "measured"; empty for a model too large to try."""
    from minilm.inspection.activation_check import check_activations

    measurement = check_activations(config, batch=batch, context=context, trained=trained)
    if measurement is None:
        return {}
    return {"measured": {**asdict(measurement), "relative_error": measurement.relative_error}}
