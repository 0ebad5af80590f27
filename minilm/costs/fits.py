"""Which uses of a model fit in a given memory: inference, LoRA and full training, by precision.

The required memory is the sum of the ledger's formulas and the overhead below. It never decreases
with more tokens, so the largest context and batch are found by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minilm.costs.activation_estimate import estimate
from minilm.costs.memory import (
    FULL_TRAINING,
    LORA_BASES,
    LORA_RANK,
    kv_cache_bytes,
    lora_state,
    stored_bytes,
    training_state,
)
from minilm.dtypes import BITS
from minilm.ledger.layout import Layout

# CUDA's context, kernels and cuBLAS workspaces take 0.3 to 0.6 GiB, depending on card and driver.
CONTEXT_BYTES = 2**29
# The caching allocator rounds sizes up and leaves gaps: a fraction of 1 / FRAGMENTATION is added.
# (For the same reasons vLLM uses 0.9 of a card by default.)
FRAGMENTATION = 20
# Inference engines prefill a long prompt in chunks of a few thousand tokens.
PREFILL_TOKENS = 2048
# Larger batches are not tried unless requested, nor longer contexts where a model has no context
# length: a maximum of this value means "at least".
SEARCHED = 2**20
DEFAULT_CONTEXT = 2048

INFERENCE = ("float32", "bfloat16", "int8", "int4")
FLOAT32 = 4


@dataclass(frozen=True)
class Fit:
    """One use of a model and the bytes it needs for ``batch`` sequences of ``context`` tokens.

    ``use`` is inference, LoRA or training; ``precision`` is the weights' dtype or a key of
    `training_bytes`' variants. ``max_context`` is the largest context, up to the model's own, that
    fits with this batch, and ``max_batch`` the largest batch with this context; 0 where none fits. A
    value of ``SEARCHED`` means that at least so many fit.
    """

    use: str
    precision: str
    checkpointing: bool
    context: int
    batch: int
    weights: int
    states: int
    kv_cache: int
    activations: int
    overhead: int
    budget: int
    max_context: int
    max_batch: int

    @property
    def required(self) -> int:
        """Bytes in all."""
        return self.weights + self.states + self.kv_cache + self.activations + self.overhead

    @property
    def fits(self) -> bool:
        """Whether they are within the budget."""
        return self.required <= self.budget


def fits(
    layout: Layout,
    budget_bytes: int,
    *,
    context: int | None = None,
    batch: int | None = None,
    rank: int = LORA_RANK,
) -> tuple[Fit, ...]:
    """Each use of the model against ``budget_bytes``, in the order inference, LoRA, full training.

    ``context`` defaults to the model's own (2048 where it has none), ``batch`` to 1. LoRA of ``rank``
    is trained with activation checkpointing, full training without and with. Activations are
    estimates; for an architecture without one only inference is listed.
    """
    context = context or layout.context_length or DEFAULT_CONTEXT
    longest = max(context, layout.context_length or SEARCHED)
    return tuple(
        _fit(need, budget_bytes, context, batch or 1, longest) for need in _needs(layout, rank)
    )


@dataclass(frozen=True)
class _Need:
    """A use's bytes: fixed ones, and cache and activations as functions of (context, batch)."""

    use: str
    precision: str
    checkpointing: bool
    weights: int
    states: int
    cache: Callable[[int, int], int]
    activations: Callable[[int, int], int]

    def required(self, context: int, batch: int) -> int:
        tensors = self.weights + self.states
        tensors += self.cache(context, batch) + self.activations(context, batch)
        return tensors + overhead_bytes(tensors)


def overhead_bytes(tensors: int) -> int:
    """Bytes of GPU memory that a process needs besides its ``tensors`` bytes of tensors."""
    return CONTEXT_BYTES + -(-tensors // FRAGMENTATION)


def _fit(need: _Need, budget: int, context: int, batch: int, longest: int) -> Fit:
    cache, activations = need.cache(context, batch), need.activations(context, batch)
    return Fit(
        need.use,
        need.precision,
        need.checkpointing,
        context,
        batch,
        need.weights,
        need.states,
        cache,
        activations,
        overhead_bytes(need.weights + need.states + cache + activations),
        budget,
        _largest(lambda tokens: need.required(tokens, batch) <= budget, longest),
        _largest(
            lambda sequences: need.required(context, sequences) <= budget, max(batch, SEARCHED)
        ),
    )


def _largest(holds: Callable[[int], bool], limit: int) -> int:
    """The largest number from 1 to ``limit`` for which a monotonic ``holds`` is true; 0 for none."""
    low, high = 0, limit  # true at low, unless low is 0; unknown above it
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _needs(layout: Layout, rank: int) -> Iterator[_Need]:
    for precision in INFERENCE:
        yield _inference(layout, precision)
    if estimate(layout) is None:
        return
    for base in LORA_BASES:
        state = lora_state(layout, base, rank=rank)
        yield _training(layout, "LoRA", f"lora_{base}", "bfloat16", state, checkpointing=True)
    for checkpointing in (False, True):
        for variant in FULL_TRAINING:
            dtype = variant.split("_")[1]
            state = training_state(layout, variant)
            yield _training(layout, "training", variant, dtype, state, checkpointing=checkpointing)


def _inference(layout: Layout, precision: str) -> _Need:
    """Weights, KV cache, one block's activations on a prefill chunk, and the next token's logits.

    Cache and arithmetic are in float32 for float32 weights, else in bfloat16.
    """
    dtype = "float32" if precision == "float32" else "bfloat16"
    per_token = estimate(layout, dtype=dtype)
    block = -(-per_token.blocks // per_token.num_layers) if per_token else 0

    def activations(context: int, batch: int) -> int:
        logits = FLOAT32 * batch * layout.symbols.get("V", 0)
        return min(batch * context, PREFILL_TOKENS) * block + logits

    def cache(context: int, batch: int) -> int:
        return kv_cache_bytes(layout, context=context, batch=batch)[dtype]

    weights = stored_bytes(layout, precision)
    return _Need("inference", precision, False, weights, 0, cache, activations)


def _training(
    layout: Layout,
    use: str,
    precision: str,
    dtype: str,
    state: dict[str, int],
    *,
    checkpointing: bool,
) -> _Need:
    """Training state, saved activations, and the logits with their gradient, where they peak."""
    per_token = estimate(layout, dtype=dtype)
    assert per_token is not None
    saved_bytes = per_token.checkpointed if checkpointing else per_token.total
    loss = (BITS[dtype] // 8 + FLOAT32) * layout.symbols.get("V", 0)

    def activations(context: int, batch: int) -> int:
        return saved_bytes(batch * context) + loss * batch * context

    states = state["total"] - state["weights"]
    return _Need(use, precision, checkpointing, state["weights"], states, lambda *_: 0, activations)
