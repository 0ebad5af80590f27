"""Which uses of a model fit in a given memory: inference, LoRA and full training, by precision.

The required memory is the sum of the ledger's formulas and the overhead below. It never decreases
with more tokens, so the largest context and batch are found by bisection.

Of minilm's own models, what minilm itself does with them is the peak of training_step.py and
generation_memory.py. Everything else is an estimate of common practice in other programs.

On several cards, inference has an equal share of the layers on each, which work one after the other:
weights and KV cache are divided, activations are not. Training shards everything (ZeRO stage 3, PyTorch's
fully_shard): weights and states are divided, one layer's weights are gathered at a time, and each card has
its share of the sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from minilm.config import ModelConfig
from minilm.config.lora import LoraConfig
from minilm.costs.activation_estimate import estimate
from minilm.costs.generation_memory import PRECISIONS, GenerationMemory, generation_memory
from minilm.costs.gguf_types import FILE_TYPES, gguf_bytes
from minilm.costs.memory import (
    FULL_TRAINING,
    LORA_BASES,
    LORA_RANK,
    cache_bytes,
    context_or_default,
    kv_cache_elements,
    lora_state,
    stored_bytes,
    training_state,
)
from minilm.costs.trained import Trained
from minilm.costs.training_step import TrainingStep
from minilm.dtypes import BITS
from minilm.ledger.layout import Layout
from minilm.ledger.layout_changes import ADAPTER_TARGETS

# CUDA's context, kernels and cuBLAS workspaces take 0.3 to 0.6 GiB, depending on card and driver.
CONTEXT_BYTES = 2**29
# Python, torch and minilm, imported: 0.23 GiB resident.
PROCESS_BYTES = 2**28
# The caching allocator rounds sizes up and leaves gaps: a fraction of 1 / FRAGMENTATION is added.
# (For the same reasons vLLM uses 0.9 of a card by default.)
FRAGMENTATION = 20
# Inference engines prefill a long prompt in chunks of a few thousand tokens.
PREFILL_TOKENS = 2048
# Larger batches are not tried unless requested, nor longer contexts where a model has no context
# length: a maximum of this value means "at least".
SEARCHED = 2**20

# What minilm trains: full training, and LoRA under autocast on a base held in these.
OWN_TRAINING = ("adamw_float32", "muon_float32", "adamw_autocast", "muon_autocast")
OWN_LORA_BASES = ("float32", "int8", "nf4")
MATRICES = tuple(word for word in ADAPTER_TARGETS if word != "lm_head")

AS_STORED = "as stored"
INFERENCE = ("float32", "bfloat16", "fp8", "int8", "int4")
FLOAT32 = 4


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One use of a model and the bytes that each card needs for ``batch`` sequences of ``context`` tokens.

    ``use`` is inference, LoRA or training; ``precision`` is the weights' dtype, a GGUF file type or a key
    of `training_bytes`' variants, `AS_STORED` the file's own. ``max_context`` is the largest context, up to
    the model's own, that fits with this batch, and ``max_batch`` the largest batch with this context; 0
    where none fits. A value of ``SEARCHED`` means that at least so many fit. ``budget`` is the memory of
    each of ``cards``. ``cache_dtype`` is empty and ``lora_rank`` 0 for a use without. ``device`` is cuda or
    cpu. ``own`` marks what minilm itself does: the peak of its own step, in whose ``activations`` are the
    gradients that are there at that moment and all temporaries.
    """

    use: str
    precision: str
    checkpointing: bool
    cache_dtype: str
    lora_rank: int
    context: int
    batch: int
    weights: int
    states: int
    kv_cache: int
    activations: int
    overhead: int
    budget: int
    cards: int
    max_context: int
    max_batch: int
    device: str = "cuda"
    own: bool = False

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
    cards: int = 1,
    context: int | None = None,
    batch: int | None = None,
    rank: int = LORA_RANK,
    cache_dtype: str | None = None,
    stored: int | None = None,
    device: str = "cuda",
    config: ModelConfig | None = None,
    trained: Trained | None = None,
) -> tuple[Fit, ...]:
    """Each use against ``cards`` of ``budget_bytes`` each, in the order inference, LoRA, full training.

    ``context`` defaults to the model's own (2048 where it has none), ``batch`` to 1. LoRA of ``rank``
    is trained with activation checkpointing, full training without and with. ``cache_dtype`` is one of
    `CACHE_DTYPES` or `SMALL_CACHE_DTYPES`, by default that of the arithmetic; ``stored`` are the bytes of
    the model's file, where there is one. Activations are estimates; for an architecture without one only
    inference is listed. ``config`` is that of a model of minilm, which ``layout`` declares without adapters:
    on one card, what minilm does needs its own peak. ``trained``: what a run trains, if not everything.
    """
    context = context_or_default(layout, context)
    longest = max(context, layout.context_length or SEARCHED)
    common = _needs(layout, cards, rank, cache_dtype, stored)
    uses = [replace(need, device=device) for need in common]
    if config is not None and cards == 1:
        own = list(_own_needs(config, layout, rank, cache_dtype, device, trained or Trained()))
        known = {need.row for need in own}
        if trained is not None and not trained.everything:
            uses = [need for need in uses if need.use == "inference"]
        uses = own + [need for need in uses if need.row not in known]
        uses.sort(key=lambda need: _USES.index(need.use))
    return tuple(_fit(need, budget_bytes, context, batch or 1, longest) for need in uses)


_USES = ("inference", "LoRA", "training")


@dataclass(frozen=True, kw_only=True)
class _Need:
    """A use's bytes in all: fixed ones, and cache and activations as functions of (context, batch).

    ``gathered`` are what a card holds of the others' weights at a time. ``batch_is_divided`` says that the
    cards work on different sequences.
    """

    use: str
    precision: str
    checkpointing: bool
    cards: int
    weights: int
    states: int = 0
    gathered: int = 0
    cache: Callable[[int, int], int] = lambda context, batch: 0
    activations: Callable[[int, int], int]
    batch_is_divided: bool = False
    cache_dtype: str = ""
    lora_rank: int = 0
    device: str = "cuda"
    own: bool = False

    @property
    def row(self) -> tuple[str, str, bool]:
        """What stands for it in a table."""
        return self.use, self.precision, self.checkpointing

    def on_each_card(self, context: int, batch: int) -> dict[str, int]:
        """Bytes of weights, states, kv_cache, activations and overhead on one card."""

        def share(total: int) -> int:
            return -(-total // self.cards)

        sizes = {
            "weights": share(self.weights) + self.gathered,
            "states": share(self.states),
            "kv_cache": share(self.cache(context, batch)),
            "activations": self.activations(
                context, share(batch) if self.batch_is_divided else batch
            ),
        }
        return {**sizes, "overhead": overhead_bytes(sum(sizes.values()), self.device)}

    def required(self, context: int, batch: int) -> int:
        return sum(self.on_each_card(context, batch).values())


def overhead_bytes(tensors: int, device: str = "cuda") -> int:
    """Bytes of a device's memory that a process needs besides its ``tensors`` bytes of tensors."""
    fixed = PROCESS_BYTES if device == "cpu" else CONTEXT_BYTES
    return fixed + -(-tensors // FRAGMENTATION)


def _fit(need: _Need, budget: int, context: int, batch: int, longest: int) -> Fit:
    return Fit(
        use=need.use,
        precision=need.precision,
        checkpointing=need.checkpointing,
        cache_dtype=need.cache_dtype,
        lora_rank=need.lora_rank,
        context=context,
        batch=batch,
        budget=budget,
        cards=need.cards,
        device=need.device,
        own=need.own,
        max_context=largest(lambda tokens: need.required(tokens, batch) <= budget, longest),
        max_batch=largest(
            lambda sequences: need.required(context, sequences) <= budget, max(batch, SEARCHED)
        ),
        **need.on_each_card(context, batch),
    )


def largest(holds: Callable[[int], bool], limit: int) -> int:
    """The largest number from 1 to ``limit`` for which a monotonic ``holds`` is true; 0 for none."""
    low, high = 0, 1  # true at low, unless low is 0
    while high <= limit and holds(high):
        low, high = high, 2 * high
    high = min(high - 1, limit)  # unknown above low, up to this
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _needs(
    layout: Layout, cards: int, rank: int, cache_dtype: str | None, stored: int | None
) -> Iterator[_Need]:
    weights = {} if stored is None else {AS_STORED: stored}
    weights |= {precision: stored_bytes(layout, precision) for precision in INFERENCE}
    weights |= {file_type: gguf_bytes(layout, file_type) for file_type in FILE_TYPES}
    for precision, size in weights.items():
        yield _inference(layout, precision, size, cards, cache_dtype)
    if estimate(layout) is None:
        return
    for base in LORA_BASES:
        state = lora_state(layout, base, rank=rank)
        yield _training(layout, f"lora_{base}", state, cards, checkpointing=True, lora_rank=rank)
    for checkpointing in (False, True):
        for variant in FULL_TRAINING:
            state = training_state(layout, variant)
            yield _training(layout, variant, state, cards, checkpointing=checkpointing)


def _inference(
    layout: Layout, precision: str, weights: int, cards: int, cache_dtype: str | None
) -> _Need:
    """Weights, KV cache, one block's activations on a prefill chunk, and the next token's logits.

    Arithmetic is in float32 for float32 weights, else in bfloat16; so is the cache unless given.
    """
    dtype = "float32" if weights >= FLOAT32 * layout.count() else "bfloat16"
    per_token = estimate(layout, dtype=dtype)
    block = -(-per_token.blocks // per_token.num_layers) if per_token else 0
    cached = cache_dtype or dtype

    def activations(context: int, batch: int) -> int:
        logits = FLOAT32 * batch * layout.symbols.get("V", 0)
        return min(batch * context, PREFILL_TOKENS) * block + logits

    def cache(context: int, batch: int) -> int:
        return cache_bytes(kv_cache_elements(layout, context=context, batch=batch), cached)

    return _Need(
        use="inference",
        precision=precision,
        checkpointing=False,
        cards=cards,
        weights=weights,
        cache=cache,
        activations=activations,
        cache_dtype=cached,
    )


def _training(
    layout: Layout,
    variant: str,
    state: dict[str, int],
    cards: int,
    *,
    checkpointing: bool,
    lora_rank: int = 0,
) -> _Need:
    """Training state, saved activations, and the logits with their gradient, where they peak."""
    dtype = "bfloat16" if lora_rank else variant.split("_")[1]
    per_token = estimate(layout, dtype=dtype)
    assert per_token is not None
    saved_bytes = per_token.checkpointed if checkpointing else per_token.total
    loss = (BITS[dtype] // 8 + FLOAT32) * layout.symbols.get("V", 0)
    distinct_layers = layout.symbols.get("S", per_token.num_layers)

    def activations(context: int, batch: int) -> int:
        return saved_bytes(batch * context) + loss * batch * context

    return _Need(
        use="LoRA" if lora_rank else "training",
        precision=variant,
        checkpointing=checkpointing,
        cards=cards,
        weights=state["weights"],
        states=state["total"] - state["weights"],
        gathered=-(-state["weights"] // distinct_layers) if cards > 1 else 0,
        activations=activations,
        batch_is_divided=True,
        lora_rank=lora_rank,
    )


def _own_needs(
    config: ModelConfig,
    layout: Layout,
    rank: int,
    cache_dtype: str | None,
    device: str,
    trained: Trained,
) -> Iterator[_Need]:
    """What minilm does with its own models: generation, LoRA and training, or what the run ``trained``."""
    if trained.lora is None:
        for precision in PRECISIONS:
            yield _own_generation(config, layout, precision, cache_dtype, device)
    changes: dict[str, Trained] = {}
    if trained.everything:
        key_width = config.num_kv_heads * config.head_dim
        targets = tuple(word for word in MATRICES if word != "gate" or config.gated)
        lora = LoraConfig(
            min(rank, config.d_model, config.d_feed_forward, key_width), targets=targets
        )
        changes = {
            f"lora_{base}": Trained(lora=lora, packing=_packing(base)) for base in OWN_LORA_BASES
        }
    elif trained.lora is not None:
        changes = {f"lora_{trained.packing or 'float32'}": trained}
    for name, change in changes.items():
        for checkpointing in (False, True):
            yield _own_training(config, layout, name, "bfloat16", checkpointing, device, change)
    if trained.lora is None:
        for checkpointing in (False, True):
            for variant in OWN_TRAINING:
                dtype = "bfloat16" if variant.endswith("_autocast") else "float32"
                yield _own_training(config, layout, variant, dtype, checkpointing, device, trained)


def _packing(base: str) -> str:
    return "" if base == "float32" else base


def _own_generation(
    config: ModelConfig, layout: Layout, precision: str, cache_dtype: str | None, device: str
) -> _Need:
    def memory(context: int, batch: int) -> GenerationMemory:
        return generation_memory(config, layout, batch=batch, context=context, precision=precision)

    own_dtype = "bfloat16" if precision == "bfloat16" else "float32"
    cached = cache_dtype or own_dtype

    def cache(context: int, batch: int) -> int:
        return cache_bytes(kv_cache_elements(layout, context=context, batch=batch), cached)

    return _Need(
        use="inference",
        precision=precision,
        checkpointing=False,
        cards=1,
        weights=memory(1, 1).weights,
        cache=cache,
        activations=lambda context, batch: memory(context, batch).temporary,
        cache_dtype=cached,
        device=device,
        own=True,
    )


def _own_training(
    config: ModelConfig,
    layout: Layout,
    variant: str,
    dtype: str,
    checkpointing: bool,
    device: str,
    trained: Trained,
) -> _Need:
    """``states`` are the optimizer's; ``activations`` what a step adds at its peak, gradients included."""
    step = TrainingStep(
        config,
        layout,
        optimizer="muon" if variant.startswith("muon") else "adamw",
        dtype=dtype,
        checkpointing=checkpointing,
        device=device,
        trained=trained,
    )

    def activations(context: int, batch: int) -> int:
        memory = step.memory(batch, context)
        return memory.gradients + memory.temporary

    return _Need(
        use="LoRA" if trained.lora else "training",
        precision=variant,
        checkpointing=checkpointing,
        cards=1,
        weights=step.weights,
        states=step.optimizer_bytes,
        activations=activations,
        lora_rank=trained.lora.rank if trained.lora else 0,
        device=device,
        own=True,
    )
