"""What of a model fits in a given memory: inference, adapters and full training, by precision.

Every need is a sum of the ledger's formulas and of an overhead that is stated below; the largest
context and batch are found by bisection, since a need never falls when tokens are added.
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

# A process that uses CUDA holds its context, kernels and cuBLAS workspaces before its first tensor:
# some 0.3 to 0.6 GiB, by card and driver.
CONTEXT_BYTES = 2**29
# The caching allocator rounds sizes up and leaves gaps: one part in this many is added to all tensors.
# (vLLM, for the same reasons, uses 0.9 of a card unless told otherwise.)
FRAGMENTATION = 20
# Engines run a long prompt through in pieces of at most some thousand tokens.
PREFILL_TOKENS = 2048
# No larger batch is tried than this unless it is asked for, nor, where a model says no context
# length, a longer context: a largest one that is this much means "at least".
SEARCHED = 2**20
USUAL_CONTEXT = 2048

INFERENCE = ("float32", "bfloat16", "int8", "int4")
FLOAT32 = 4


@dataclass(frozen=True)
class Fit:
    """One use of a model and the bytes it needs for ``batch`` sequences of ``context`` tokens.

    ``use`` is inference, LoRA or training; ``precision`` a dtype of weights, or a key of `training_bytes`'
    variants.
    ``max_context`` is the largest context, up to the model's own, that fits with this batch, and
    ``max_batch`` the largest batch with this context; 0 where not one fits. The search for either
    ends at ``SEARCHED``: that number means that so many fit, and perhaps more.
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
        """Bytes of everything."""
        return self.weights + self.states + self.kv_cache + self.activations + self.overhead

    @property
    def fits(self) -> bool:
        """Whether that is within the budget."""
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

    ``context`` is by default the model's own (2048 where it has none) and ``batch`` 1. LoRA of
    ``rank`` is trained with activation checkpointing, full training without and with. Activations are
    estimates; where there is none for an architecture, only inference is listed.
    """
    context = context or layout.context_length or USUAL_CONTEXT
    longest = max(context, layout.context_length or SEARCHED)
    return tuple(
        _fit(need, budget_bytes, context, batch or 1, longest) for need in _needs(layout, rank)
    )


@dataclass(frozen=True)
class _Need:
    """A use: what does not depend on tokens, and cache and activations as functions of (context, batch)."""

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
    """What a process needs on a GPU besides ``tensors`` bytes of tensors."""
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
    """The largest number from 1 to ``limit`` that ``holds``, 0 for none; it must hold below that too."""
    low, high = 0, limit  # holds at low, or low is 0; not known above it
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
        for way in FULL_TRAINING:
            dtype = way.split("_")[1]
            state = training_state(layout, way)
            yield _training(layout, "training", way, dtype, state, checkpointing=checkpointing)


def _inference(layout: Layout, precision: str) -> _Need:
    """Weights, cache, the widest moment of one block on a piece of prompt, and the next logits.

    Cache and arithmetic are float32 with float32 weights and else bfloat16.
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
    """State, what is kept for the backward pass, and where that begins: logits and their gradient."""
    per_token = estimate(layout, dtype=dtype)
    assert per_token is not None
    kept = per_token.checkpointed if checkpointing else per_token.total
    loss = (BITS[dtype] // 8 + FLOAT32) * layout.symbols.get("V", 0)

    def activations(context: int, batch: int) -> int:
        return kept(batch * context) + loss * batch * context

    states = state["total"] - state["weights"]
    return _Need(use, precision, checkpointing, state["weights"], states, lambda *_: 0, activations)
