"""Bytes that follow from the counts: stored weights, training state, KV cache."""

from __future__ import annotations

from minilm.dtypes import REPORTED, storage_bytes
from minilm.ledger.layout import Layout


def weight_bytes(count: int) -> dict[str, int]:
    """Bytes of ``count`` parameters in each reported precision, without quantization scales."""
    return {dtype: storage_bytes(count, dtype) for dtype in REPORTED}


def training_bytes(count: int) -> dict[str, int]:
    """Bytes of state that minilm's training keeps: float32 weights and gradients, AdamW's two means.

    Autocast copies and activations come on top; they depend on the batch.
    """
    weights = storage_bytes(count, "float32")
    return {
        "weights": weights,
        "gradients": weights,
        "optimizer": 2 * weights,
        "total": 4 * weights,
    }


def kv_cache_bytes(layout: Layout, *, context: int, batch: int) -> dict[str, int]:
    """Bytes of a KV cache of ``batch`` sequences of ``context`` tokens, in 16 and 32 bits."""
    elements = batch * sum(
        (kind.layers * kind.cache).value(layout.symbols) * kind.span(context)
        for kind in layout.attention
    )
    return {dtype: storage_bytes(elements, dtype) for dtype in ("float32", "bfloat16")}
