"""The calculator of the page: the letters of a model's formula, and what the page computes from them.

The page evaluates polynomials that are written here as data; no formula is typed in its script. A letter is
free, or follows from others (k = d / h), or does so until it is moved (f = 4d), or has a rule that it must
obey (h divides d).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minilm.costs.formulas import TRAINED_IN, Cost, costs, is_polynomial
from minilm.costs.memory import CACHE_DTYPES, context_or_default
from minilm.dtypes import BITS, REPORTED
from minilm.inspection.report import Report
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import (
    ONE,
    PRETTY,
    ZERO,
    Polynomial,
    format_polynomial,
    letter_meaning,
    symbol,
)
from minilm.render.block_diagram import Part, diagram, parts_of
from minilm.safe_text import one_line

# In the order in which they are set: a rule names letters before it.
_ORDER = ("V", "D", "M", "L", "S", "d", "f", "h", "g", "k", "E", "e", "m", "s", "R", "c", "r")
# Least and largest value of a slider, and its steps an octave; 0: every whole number.
_RANGES = {
    "V": (256, 2**19, 8),
    "T": (16, 2**20, 1),
    "R": (256, 2**19, 2),
    **dict.fromkeys("dms", (16, 2**15, 8)),
    "f": (16, 2**17, 8),  # 4d
    **dict.fromkeys("LDMShgeE", (1, 128, 0)),
    "k": (2, 512, 8),
    "c": (1, 16, 0),
    "r": (1, 256, 2),
    "B": (1, 1024, 1),
    "cards": (1, 1024, 1),
}
_LAYER_COUNTS = frozenset("LDMS")
MOST_PARTS = 40


@dataclass(frozen=True)
class Letter:
    """A slider. ``divides`` and ``at_most`` name the letter of its rule; it is a multiple of ``multiple``.

    ``quotient`` times the letter divides the other one: heads of an even width. ``derived`` is (numerator,
    denominator) of what follows from other letters, ``text`` the same for people; ``follows`` is what a
    slider is until it is moved.
    """

    name: str
    meaning: str
    value: int
    stops: tuple[int, ...] = ()
    divides: str = ""
    at_most: str = ""
    quotient: int = 1
    multiple: int = 1
    derived: tuple[Polynomial, Polynomial] | None = None
    follows: Polynomial | None = None
    text: str = ""
    why_fixed: str = ""


@dataclass(frozen=True)
class Calculator:
    """What the page shows and computes: the letters, the parts of the model, the costs."""

    letters: tuple[Letter, ...]
    parts: tuple[Part, ...]
    costs: tuple[Cost, ...]
    formula: str
    drawing: str
    notes: tuple[str, ...]
    weight_dtypes: tuple[str, ...] = REPORTED
    cache_dtypes: tuple[str, ...] = CACHE_DTYPES

    def data(self) -> dict[str, Any]:
        """What the script reads, as JSON values."""
        return {
            "letters": [_letter_data(letter) for letter in self.letters],
            "parts": [
                {
                    "name": part.name,
                    "count": polynomial_data(part.count),
                    "shape": [polynomial_data(side) for side in part.shape],
                    "biases": polynomial_data(part.biases),
                }
                for part in self.parts
            ],
            "costs": [
                {
                    "key": cost.key,
                    "unit": cost.unit,
                    "terms": [[polynomial_data(t.polynomial), t.window] for t in cost.terms],
                    "divisor": polynomial_data(cost.divisor),
                    "trained_in": cost.trained_in,
                }
                for cost in self.costs
            ],
            "bits": {dtype: BITS[dtype] for dtype in (*self.weight_dtypes, *self.cache_dtypes)},
            # float16 is trained as bfloat16 is.
            "trained_as": {**{d: d for d in TRAINED_IN}, "float16": "bfloat16"},
        }


def calculator_of(report: Report) -> Calculator | None:
    """Of a report that has a formula; None without one, or where no letter may change."""
    layout = report.layout
    if layout is None or report.formula is None:
        return None
    cache = report.memory["kv_cache"] or {}
    return calculator(layout, batch=cache.get("batch", 1))


def calculator(layout: Layout, *, batch: int = 1) -> Calculator | None:
    """The calculator of a layout; None where its tensors have no letter."""
    all_costs = costs(layout)
    parts = parts_of(layout)
    total = sum((part.count for part in parts), ZERO)
    if not total.letters() or len(parts) > MOST_PARTS:
        return None
    notes = []
    if layout.attention and not is_polynomial(layout):
        notes.append(
            "KV cache and FLOPs of this sparse or compressed attention are no polynomials: they are "
            "in the tables below, for the model as it is."
        )
    windows = sorted({kind.window for kind in layout.attention if kind.window})
    if windows and is_polynomial(layout):
        notes.append(
            f"Some layers look back on at most {', '.join(f'{each:,}' for each in windows)} tokens "
            "(sliding windows): their KV cache and FLOPs do not grow with T beyond that."
        )
    if layout.state != ZERO:
        notes.append("The state of recurrent layers is in the table of memory below.")
    if any(tensor.frozen for tensor in layout.tensors):
        notes.append("Some parameters are frozen: the training state is in the table below.")
    return Calculator(
        letters=tuple(_letters(layout, total, all_costs, batch)),
        parts=tuple(parts),
        costs=tuple(all_costs),
        formula=one_line(layout.formula().pretty),
        drawing=diagram(parts, layout.symbols),
        notes=tuple(notes),
        cache_dtypes=CACHE_DTYPES if layout.has_tokens else (),
    )


def polynomial_data(polynomial: Polynomial) -> list[list[Any]]:
    """Terms as [coefficient as text, letter, power, letter, power, ...]: JavaScript reads it as a BigInt."""
    return [
        [str(coefficient), *(each for factor in monomial for each in factor)]
        for monomial, coefficient in polynomial.terms.items()
    ]


def _letters(layout: Layout, total: Polynomial, all_costs: list[Cost], batch: int) -> list[Letter]:
    symbols = layout.symbols
    used = total.letters().union(
        *(term.polynomial.letters() for cost in all_costs for term in cost.terms)
    )
    derived = _derived(symbols, used)
    used |= {
        letter for quotient, _ in derived.values() for part in quotient for letter in part.letters()
    }
    letters = []
    for name in _ORDER:
        if name not in symbols or (name not in used and name not in derived):
            continue
        meaning = letter_meaning(name, layout.family)
        if name in derived:
            quotient, text = derived[name]
            letters.append(Letter(name, meaning, symbols[name], derived=quotient, text=text))
        elif name in _LAYER_COUNTS and _has_numbered_layers(layout):
            why = "layers of several kinds: their number stays"
            letters.append(Letter(name, meaning, symbols[name], why_fixed=why))
        else:
            rules = _rules(name, symbols, derived) | _ties(name, symbols)
            stops = _stops(name, symbols[name])
            letters.append(Letter(name, meaning, symbols[name], stops, **rules))
    context = symbols.get("T", context_or_default(layout, None))
    letters.append(Letter("T", "context", context, _stops("T", context)))
    letters.append(Letter("B", "batch, sequences", batch, _stops("B", batch)))
    letters.append(Letter("cards", "cards that share the state", 1, _stops("cards", 1)))
    # Of other letters the page has the values alone.
    listed = {letter.name for letter in letters}
    letters += [
        Letter(name, letter_meaning(name, layout.family), symbols[name], why_fixed="stays as it is")
        for name in sorted((used & symbols.keys()) - listed)
    ]
    return letters


_Derived = dict[str, tuple[tuple[Polynomial, Polynomial], str]]


def _derived(symbols: Mapping[str, int], used: set[str]) -> _Derived:
    """Letters that follow from others in this model, as its formula was written for it."""
    d, h = symbol("d"), symbol("h")
    derived: _Derived = {}
    if {"d", "h", "k"} <= symbols.keys() and symbols["h"] * symbols["k"] == symbols["d"]:
        derived["k"] = (d, h), "d / h"
    if {"g", "h"} <= symbols.keys() and "g" not in used and symbols["g"] == symbols["h"]:
        derived["g"] = (h, ONE), "h"
    if {"d", "f"} <= symbols.keys() and "f" not in used and symbols["f"] % symbols["d"] == 0:
        times = symbols["f"] // symbols["d"]
        derived["f"] = (times * d, ONE), format_polynomial(times * d, PRETTY)
    if {"D", "M", "L"} <= symbols.keys() and symbols["D"] + symbols["M"] == symbols["L"]:
        derived["L"] = (symbol("D") + symbol("M"), ONE), "D + M"
    return derived


def _ties(name: str, symbols: Mapping[str, int]) -> dict[str, Any]:
    """What a free letter is in this model, and in most: f a multiple of d, g all heads."""
    multiple = ZERO
    if name == "f" and "d" in symbols and symbols["f"] % symbols["d"] == 0:
        multiple = symbols["f"] // symbols["d"] * symbol("d")
    if name == "g" and symbols.get("h") == symbols["g"]:
        multiple = symbol("h")
    text = format_polynomial(multiple, PRETTY)
    return {"follows": multiple, "text": text} if multiple != ZERO else {}


def _rules(name: str, symbols: Mapping[str, int], derived: _Derived) -> dict[str, Any]:
    whole_heads = "k" in derived
    # RoPE rotates pairs: where the heads are of an even width, they remain so.
    pairs = 2 if whole_heads and symbols["k"] % 2 == 0 else 1
    if name == "d" and whole_heads:
        return {"multiple": pairs}
    if name == "h" and whole_heads:
        return {"divides": "d", "quotient": pairs}
    if name == "g" and "h" in symbols and symbols["h"] % symbols["g"] == 0:
        return {"divides": "h"}
    if name == "e" and "E" in symbols:
        return {"at_most": "E"}
    return {"at_most": "L"} if name == "S" else {}


def _has_numbered_layers(layout: Layout) -> bool:
    """Whether some tensors or kinds of attention are of so many layers, and not of a letter of them."""
    counts = [tensor.repeat for tensor in layout.tensors if tensor.repeat != ONE]
    counts += [kind.layers for kind in layout.attention]
    return any(not count.letters() for count in counts)


def _stops(name: str, value: int) -> tuple[int, ...]:
    low, high, parts = _RANGES[name]
    if not parts:
        return tuple(range(low, max(high, 2 * value) + 1))
    stops = {value}
    octave = 1
    while octave <= max(high, value):
        stops |= {octave + octave * i // parts for i in range(parts) if octave >= parts}
        octave *= 2
    return tuple(sorted(stop for stop in stops if min(low, value) <= stop <= max(high, value)))


def _letter_data(letter: Letter) -> dict[str, Any]:
    data: dict[str, Any] = {"name": letter.name, "value": letter.value}
    if letter.derived is not None:
        return data | {"derived": [polynomial_data(part) for part in letter.derived]}
    if not letter.stops:
        return data
    rules = {"divides": letter.divides, "at_most": letter.at_most}
    numbers = {"quotient": letter.quotient, "multiple": letter.multiple}
    if letter.follows is not None:
        data["follows"] = polynomial_data(letter.follows)
    return data | {"stops": letter.stops} | rules | numbers
