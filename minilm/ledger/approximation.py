"""The textbook count 2Vd + 12Ld² and how far it is from the exact one on this very model.

12Ld² is Kaplan et al. 2020 (arXiv:2001.08361, table 1, with f = 4d); 2Vd counts an embedding and an
untied head. It leaves out biases, norms, positions, grouped heads, gates and tying: hence the error.
"""

from __future__ import annotations

from dataclasses import dataclass

from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ASCII, PRETTY, symbol, written

_V, _L, _d = symbol("V"), symbol("L"), symbol("d")
TEXTBOOK = 2 * _V * _d + 12 * _L * _d * _d


@dataclass(frozen=True)
class Approximation:
    """A rule of thumb's value, and its error relative to the exact count (negative: too small)."""

    text: str
    pretty: str
    value: int
    relative_error: float


def textbook(layout: Layout) -> Approximation | None:
    """The rule on this model; None for a family without the letters V, L and d."""
    if not {"V", "L", "d"} <= layout.symbols.keys():
        return None
    value = TEXTBOOK.value(layout.symbols)
    exact = layout.count()
    # 2Vd first, as the textbooks write it.
    return Approximation(
        f"{written(2 * _V * _d, ASCII)} + {written(12 * _L * _d * _d, ASCII)}",
        f"{written(2 * _V * _d, PRETTY)} + {written(12 * _L * _d * _d, PRETTY)}",
        value,
        (value - exact) / exact,
    )
