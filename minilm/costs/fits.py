"""Which uses of a model fit in a given memory: inference, LoRA and full training, by precision.

The required memory is the sum of the ledger's formulas and an overhead (memory_need.py). It never decreases
with more tokens, so the largest context and batch are found by bisection.

Of minilm's own models, what minilm itself does with them is in own_needs.py; what other programs do, with any
model, in common_needs.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from minilm.config import ModelConfig
from minilm.costs.common_needs import common_needs
from minilm.costs.memory import LORA_RANK, context_or_default
from minilm.costs.memory_need import Need
from minilm.costs.own_needs import own_needs
from minilm.costs.trained import Trained
from minilm.ledger.layout import Layout

# Larger batches are not tried unless requested, nor longer contexts where a model has no context
# length: a maximum of this value means "at least".
SEARCHED = 2**20


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
    Where nothing is a token's, no use has a known cost.
    """
    if not layout.has_tokens:
        return ()
    context = context_or_default(layout, context)
    longest = max(context, layout.context_length or SEARCHED)
    common = common_needs(layout, cards, rank, cache_dtype, stored)
    uses = [replace(need, device=device) for need in common]
    if config is not None and cards == 1:
        own = list(own_needs(config, layout, rank, cache_dtype, device, trained or Trained()))
        known = {need.row for need in own}
        if trained is not None and not trained.everything:
            uses = [need for need in uses if need.use == "inference"]
        uses = own + [need for need in uses if need.row not in known]
        uses.sort(key=lambda need: _USES.index(need.use))
    return tuple(_fit(need, budget_bytes, context, batch or 1, longest) for need in uses)


_USES = ("inference", "LoRA", "training")


def _fit(need: Need, budget: int, context: int, batch: int, longest: int) -> Fit:
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
