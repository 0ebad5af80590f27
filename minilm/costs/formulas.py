"""Costs as polynomials in the letters of a layout, for whoever changes the letters.

The numbers of a report are the same polynomials evaluated (memory.py, flops.py, `AttentionSpec`). B is the
batch in sequences, T the context in tokens, ``span`` those of it that a layer attends to; ``bits`` and
``cache_bits`` are those of a stored weight and of an element of the KV cache, ``cards`` the number of GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minilm.costs.flops import TRAINING, matrix_flops
from minilm.costs.memory import training_formula
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE, ZERO, Polynomial, as_polynomial, symbol

BYTE = as_polynomial(8)
BATCH, CONTEXT, SPAN = symbol("B"), symbol("T"), symbol("span")
WEIGHT_BITS, CACHE_BITS, CARDS = symbol("bits"), symbol("cache_bits"), symbol("cards")
# What is trained in them with AdamW; in fewer bits only an adapter is.
TRAINED_IN = ("float32", "bfloat16")


@dataclass(frozen=True)
class Term:
    """A polynomial, in which ``span`` is T, and at most ``window`` where that is not 0."""

    polynomial: Polynomial
    window: int = 0


@dataclass(frozen=True)
class Cost:
    """The sum of ``terms`` divided by ``divisor``, rounded up. ``trained_in``: the dtype it is valid for."""

    key: str
    label: str
    unit: str
    terms: tuple[Term, ...]
    divisor: Polynomial = ONE
    trained_in: str = ""

    def a_card(self) -> Cost:
        """The same shared out over all cards."""
        return Cost(
            f"{self.key}_a_card",
            f"{self.label}, a card",
            self.unit,
            self.terms,
            self.divisor * CARDS,
            self.trained_in,
        )


def costs(layout: Layout) -> list[Cost]:
    """Weights, training state, KV cache and FLOPs; without those that are no polynomials here.

    A frozen part has no gradients, and a sparse or compressed cache no length of T: their costs are left out.
    """
    count = sum((tensor.count for tensor in layout.tensors), ZERO)
    items = [Cost("weights", "weights", "bytes", (Term(count * WEIGHT_BITS),), BYTE)]
    if not any(tensor.frozen for tensor in layout.tensors):
        for dtype in TRAINED_IN:
            parts = training_formula(layout, f"adamw_{dtype}")
            state = Term(sum(parts.values(), ZERO))
            items.append(
                Cost(f"training_{dtype}", "training state", "bytes", (state,), trained_in=dtype)
            )
    items = [cost for item in items for cost in (item, item.a_card())]
    if not layout.attention or not is_polynomial(layout):
        return items
    kinds = layout.attention
    cache = [Term(BATCH * k.layers * k.cache * SPAN * CACHE_BITS, k.window) for k in kinds]
    attention = [Term(2 * k.layers * (k.scores + k.values) * SPAN, k.window) for k in kinds]
    forward = [Term(matrix_flops(layout)), *attention]
    step = [Term(term.polynomial * TRAINING * BATCH * CONTEXT, term.window) for term in forward]
    whole_step = Cost("step", "training, a step of the batch", "FLOPs", tuple(step))
    return [
        *items,
        Cost("kv_cache", "KV cache", "bytes", tuple(cache), BYTE),
        Cost("forward_per_token", "forward, a token", "FLOPs", tuple(forward)),
        Cost("attention_per_token", "of it attention over the context", "FLOPs", tuple(attention)),
        Cost("training_per_token", "training, a token", "FLOPs", _times(forward, TRAINING)),
        whole_step,
        whole_step.a_card(),
    ]


def is_polynomial(layout: Layout) -> bool:
    """Whether a token attends to all tokens of the context, or of a window."""
    return not any(kind.selected or kind.every > 1 or kind.beside for kind in layout.attention)


def _times(terms: Sequence[Term], factor: int) -> tuple[Term, ...]:
    return tuple(Term(factor * term.polynomial, term.window) for term in terms)
