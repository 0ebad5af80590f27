"""The textbook count 2Vd + 12Ld², and its error for a given model.

12Ld² is Kaplan et al. 2020 (arXiv:2001.08361, table 1, with f = 4d); 2Vd is an embedding and an
untied head. Biases, norms, positions, grouped heads, gates and tying are ignored: hence the error.
"""

from __future__ import annotations

from dataclasses import dataclass

from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ASCII, PRETTY, format_polynomial, symbol

_V, _L, _d = symbol("V"), symbol("L"), symbol("d")
TEXTBOOK = 2 * _V * _d + 12 * _L * _d * _d


@dataclass(frozen=True)
class Approximation:
    """An approximate count, and its error relative to the exact one (negative: too small)."""

    text: str
    pretty: str
    value: int
    relative_error: float


def textbook(layout: Layout) -> Approximation | None:
    """The textbook count of this model; None for a layout without the symbols V, L and d."""
    if not {"V", "L", "d"} <= layout.symbols.keys():
        return None
    # A shared layer is one layer.
    depth = symbol("S" if "S" in layout.symbols else "L")
    tables, blocks = 2 * _V * _d, 12 * depth * _d * _d
    value = (tables + blocks).value(layout.symbols)
    exact = layout.count()
    # Textbooks write 2Vd first.
    return Approximation(
        f"{format_polynomial(tables, ASCII)} + {format_polynomial(blocks, ASCII)}",
        f"{format_polynomial(tables, PRETTY)} + {format_polynomial(blocks, PRETTY)}",
        value,
        (value - exact) / exact,
    )
