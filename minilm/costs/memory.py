"""Memory that follows from the counts: stored weights, training state, KV cache.

Bytes a parameter in mixed precision: Rajbhandari et al. 2020 (ZeRO, arXiv:1910.02054), section 3.1.
"""

from __future__ import annotations

from typing import Any

from minilm.dtypes import BITS, REPORTED, storage_bytes
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.layout_changes import check_rank
from minilm.ledger.symbols import ZERO, Polynomial

DEFAULT_CONTEXT = 2048  # tokens, where neither a user nor the model says

CACHE_DTYPES = ("float32", "float16", "bfloat16", "int8")
# fp8 as vLLM stores it, without scales; q8_0 and q4_0 are llama.cpp's, with a scale a block.
SMALL_CACHE_DTYPES = ("fp8", "q8_0", "q4_0")
_FP8 = "float8_e4m3fn"

# Variants of full training: the optimizer, and the dtype of weights and gradients.
FULL_TRAINING = ("adamw_float32", "muon_float32", "adamw_bfloat16", "muon_bfloat16")
# Variants of LoRA (Hu et al. 2021, arXiv:2106.09685): the dtype of the frozen base.
LORA_BASES = ("bfloat16", "int8", "nf4")
LORA_RANK = 16

# Weights to a 16-bit scale, as in GPTQ and AWQ files.
SCALE_GROUP = 64
# NF4 with double quantization (Dettmers et al. 2023, arXiv:2305.14314, section 3): an 8-bit scale for a
# group of weights, and a 32-bit scale for a group of those.
NF4_GROUP, NF4_SCALE_GROUP = 64, 64 * 256
# Weights to a float32 scale in FP8 files as DeepSeek's: a block of 128 x 128.
FP8_BLOCK = 128 * 128


def weight_bytes(count: int) -> dict[str, int]:
    """Bytes of ``count`` parameters in each reported dtype, without quantization scales."""
    return {dtype: storage_bytes(count, dtype) for dtype in REPORTED}


def training_bytes(count: int, *, layout: Layout | None = None, frozen: int = 0) -> dict[str, Any]:
    """Bytes of minilm's training state: float32 weights and gradients, and AdamW's two moments.

    Beside the ``count`` parameters that are trained, ``frozen`` bytes of others have weights alone.
    With a ``layout``, ``variants`` has `training_state` and `lora_state` of every variant. Activations
    are not included: they depend on the batch.
    """
    trained = storage_bytes(count, "float32")
    weights = trained + frozen
    sizes: dict[str, Any] = {
        "weights": weights,
        "gradients": trained,
        "optimizer": 2 * trained,
        "total": weights + 3 * trained,
    }
    if layout is not None:
        sizes["variants"] = {name: training_state(layout, name) for name in FULL_TRAINING} | {
            f"lora_{base}": lora_state(layout, base) for base in LORA_BASES
        }
    return sizes


def training_state(layout: Layout, variant: str) -> dict[str, int]:
    """Bytes of the state for training every parameter, in a variant of `FULL_TRAINING`.

    AdamW has two float32 moments of each parameter; Muon (Jordan et al. 2024) one momentum of each
    hidden matrix, and AdamW for the other parameters. bfloat16 weights have a float32 master copy.
    """
    sizes = {
        part: size.value(layout.symbols) for part, size in training_formula(layout, variant).items()
    }
    return {**sizes, "total": sum(sizes.values())}


def training_formula(layout: Layout, variant: str) -> dict[str, Polynomial]:
    """The parts of `training_state` in the letters of the layout."""
    optimizer, dtype = variant.split("_")
    count = sum((tensor.count for tensor in layout.tensors), ZERO)
    in_muon = ZERO
    if optimizer == "muon":
        in_muon = sum((tensor.count for tensor in hidden_matrices(layout)), ZERO)
    element, float32 = BITS[dtype] // 8, BITS["float32"] // 8
    return {
        "weights": element * count,
        "master": float32 * count if dtype != "float32" else ZERO,
        "gradients": element * count,
        "optimizer": float32 * (2 * count - in_muon),
    }


def lora_state(layout: Layout, base: str, *, rank: int = LORA_RANK) -> dict[str, int]:
    """Bytes of the state for training LoRA: the frozen base, and float32 adapters with AdamW."""
    adapters = storage_bytes(lora_parameters(layout, rank), "float32")
    sizes = {
        "weights": stored_bytes(layout, base),
        "adapters": adapters,
        "gradients": adapters,
        "optimizer": 2 * adapters,
    }
    return {**sizes, "total": sum(sizes.values())}


def stored_bytes(layout: Layout, precision: str) -> int:
    """Bytes of weights for inference: float32, bfloat16, or fp8, int8, int4, nf4 with their scales.

    Only linear layers are quantized; embeddings, head, norms and biases stay in bfloat16, as
    bitsandbytes, GPTQ and AWQ leave them.
    """
    count = layout.count()
    if precision in ("float32", "bfloat16"):
        return storage_bytes(count, precision)
    quantized = sum(layout.value(tensor) for tensor in hidden_matrices(layout))
    if precision == "nf4":
        scales = -(-quantized // NF4_GROUP) + 4 * -(-quantized // NF4_SCALE_GROUP)
        values = storage_bytes(quantized, "int4")
    elif precision == "fp8":
        scales = 4 * -(-quantized // FP8_BLOCK)
        values = storage_bytes(quantized, _FP8)
    else:
        scales = 2 * -(-quantized // SCALE_GROUP)
        values = storage_bytes(quantized, precision)
    return values + scales + storage_bytes(count - quantized, "bfloat16")


def lora_parameters(layout: Layout, rank: int) -> int:
    """Parameters of LoRA on every matrix of attention, feed-forward and experts: rank * (in + out)."""
    total = 0
    for tensor in _adapted_matrices(layout):
        rows, columns = (dimension.value(layout.symbols) for dimension in tensor.shape[-2:])
        matrices = layout.value(tensor) // (rows * columns)
        total += matrices * rank * (rows + columns)
    return total


def check_lora_rank(layout: Layout, rank: int) -> None:
    """Raises ConfigError where such an adapter is wider than one of the matrices that would have it."""
    for tensor in _adapted_matrices(layout):
        check_rank(rank, layout, tensor.name, tensor.shape[-2:])


def _adapted_matrices(layout: Layout) -> list[Tensor]:
    return [each for each in hidden_matrices(layout) if each.component not in _WITHOUT_ADAPTER]


# Matrices as narrow as the number of experts or of classes, or outside the layers.
_WITHOUT_ADAPTER = (
    components.ROUTER,
    components.SHARED_EXPERT_GATE,
    components.CLASSIFIER,
    components.EMBEDDING_PROJECTION,
)


def hidden_matrices(layout: Layout) -> list[Tensor]:
    """The matrices that multiply activations inside the network: no embeddings, head or convolutions."""
    return [
        tensor
        for tensor in layout.tensors
        if tensor.role is Role.MULTIPLIED
        and tensor.component not in (components.LM_HEAD, components.CONVOLUTION)
    ]


def kv_cache_bytes(layout: Layout, *, context: int, batch: int) -> dict[str, int]:
    """Bytes of a KV cache of ``batch`` sequences of ``context`` tokens, in each of `CACHE_DTYPES`."""
    elements = kv_cache_elements(layout, context=context, batch=batch)
    return {dtype: cache_bytes(elements, dtype) for dtype in CACHE_DTYPES}


def kv_cache_elements(layout: Layout, *, context: int, batch: int) -> int:
    """Elements of a KV cache of ``batch`` sequences of ``context`` tokens."""
    return batch * sum(kind.cached(context).value(layout.symbols) for kind in layout.attention)


def state_bytes(layout: Layout, *, batch: int) -> int:
    """Bytes of the recurrent layers' state of ``batch`` sequences, which programs keep in float32."""
    return storage_bytes(batch * layout.state.value(layout.symbols), "float32")


def cache_bytes(elements: int, dtype: str) -> int:
    """Bytes of a KV cache in one of `CACHE_DTYPES` or `SMALL_CACHE_DTYPES`."""
    return storage_bytes(elements, _FP8 if dtype == "fp8" else dtype)


def context_or_default(layout: Layout, context: int | None) -> int:
    """``context`` if given, else the model's own, else `DEFAULT_CONTEXT`."""
    return context or layout.context_length or DEFAULT_CONTEXT
