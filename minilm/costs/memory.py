"""Bytes that follow from the counts: stored weights, training state, KV cache.

Bytes a parameter in mixed precision: Rajbhandari et al. 2020 (ZeRO, arXiv:1910.02054), section 3.1.
"""

from __future__ import annotations

from typing import Any

from minilm.dtypes import REPORTED, storage_bytes
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor

CACHE_DTYPES = ("float32", "float16", "bfloat16", "int8")

# Ways to train: the optimizer, and what the weights are in forward and backward passes.
FULL_TRAINING = ("adamw_float32", "muon_float32", "adamw_bfloat16", "muon_bfloat16")
# Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) on a frozen base: what the base is stored in.
LORA_BASES = ("bfloat16", "int8", "nf4")
LORA_RANK = 16

# Quantized linear maps share a 16-bit scale in groups of this many, as GPTQ and AWQ files do (64 or 128).
SCALE_GROUP = 64
# NF4 (Dettmers et al. 2023, arXiv:2305.14314, section 3): an 8-bit scale for 64 weights, and a 32-bit
# scale for 256 of those.
NF4_GROUP, NF4_SCALE_GROUP = 64, 64 * 256


def weight_bytes(count: int) -> dict[str, int]:
    """Bytes of ``count`` parameters in each reported precision, without quantization scales."""
    return {dtype: storage_bytes(count, dtype) for dtype in REPORTED}


def training_bytes(count: int, *, layout: Layout | None = None) -> dict[str, Any]:
    """Bytes of state that minilm's training keeps: float32 weights and gradients, AdamW's two means.

    With a ``layout``, ``variants`` has `training_state` and `lora_state` for every other way to train.
    Activations come on top; they depend on the batch.
    """
    weights = storage_bytes(count, "float32")
    sizes: dict[str, Any] = {
        "weights": weights,
        "gradients": weights,
        "optimizer": 2 * weights,
        "total": 4 * weights,
    }
    if layout is not None:
        sizes["variants"] = {way: training_state(layout, way) for way in FULL_TRAINING} | {
            f"lora_{base}": lora_state(layout, base) for base in LORA_BASES
        }
    return sizes


def training_state(layout: Layout, way: str) -> dict[str, int]:
    """Bytes that training every parameter keeps, in one of the `FULL_TRAINING` ways.

    AdamW keeps two float32 means of each parameter; Muon (Jordan et al. 2024) one momentum of each
    hidden matrix, and leaves the rest to AdamW. With bfloat16 weights and gradients a float32 master
    copy is updated.
    """
    optimizer, dtype = way.split("_")
    count = layout.count()
    single = muon_parameters(layout) if optimizer == "muon" else 0
    sizes = {
        "weights": storage_bytes(count, dtype),
        "master": storage_bytes(count, "float32") if dtype != "float32" else 0,
        "gradients": storage_bytes(count, dtype),
        "optimizer": storage_bytes(2 * count - single, "float32"),
    }
    return {**sizes, "total": sum(sizes.values())}


def lora_state(layout: Layout, base: str, *, rank: int = LORA_RANK) -> dict[str, int]:
    """Bytes that training low-rank adapters keeps: the frozen base, and adapters in float32 with AdamW."""
    adapters = storage_bytes(lora_parameters(layout, rank), "float32")
    sizes = {
        "weights": stored_bytes(layout, base),
        "adapters": adapters,
        "gradients": adapters,
        "optimizer": 2 * adapters,
    }
    return {**sizes, "total": sum(sizes.values())}


def stored_bytes(layout: Layout, precision: str) -> int:
    """Bytes of weights for use: float32, bfloat16, or int8, int4, nf4 with their scales.

    Those quantize the linear maps; embeddings, head, norms and biases stay in bfloat16, as
    bitsandbytes, GPTQ and AWQ leave them.
    """
    count = layout.count()
    if precision in ("float32", "bfloat16"):
        return storage_bytes(count, precision)
    quantized = sum(layout.value(tensor) for tensor in hidden_matrices(layout))
    if precision == "nf4":
        scales = -(-quantized // NF4_GROUP) + 4 * -(-quantized // NF4_SCALE_GROUP)
        values = storage_bytes(quantized, "int4")
    else:
        scales = 2 * -(-quantized // SCALE_GROUP)
        values = storage_bytes(quantized, precision)
    return values + scales + storage_bytes(count - quantized, "bfloat16")


def muon_parameters(layout: Layout) -> int:
    """Parameters that Muon updates: those of hidden matrices, neither embeddings nor head."""
    return sum(layout.value(tensor) for tensor in hidden_matrices(layout))


def lora_parameters(layout: Layout, rank: int) -> int:
    """Parameters of adapters on every matrix of attention, feed-forward and experts: rank * (in + out)."""
    total = 0
    for tensor in hidden_matrices(layout):
        if tensor.component in (components.ROUTER, components.EMBEDDING_PROJECTION):
            continue
        rows, columns = (side.value(layout.symbols) for side in tensor.shape[-2:])
        matrices = layout.value(tensor) // (rows * columns)
        total += matrices * rank * (rows + columns)
    return total


def hidden_matrices(layout: Layout) -> list[Tensor]:
    """The tensors that multiply activations inside the network: the head is none of them."""
    return [
        tensor
        for tensor in layout.tensors
        if tensor.role is Role.MULTIPLIED and tensor.component != components.LM_HEAD
    ]


def kv_cache_bytes(layout: Layout, *, context: int, batch: int) -> dict[str, int]:
    """Bytes of a KV cache of ``batch`` sequences of ``context`` tokens, in each of `CACHE_DTYPES`."""
    elements = batch * sum(
        (kind.layers * kind.cache).value(layout.symbols) * kind.span(context)
        for kind in layout.attention
    )
    return {dtype: storage_bytes(elements, dtype) for dtype in CACHE_DTYPES}
