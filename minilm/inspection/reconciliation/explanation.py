"""The answer of a reconciliation: the arithmetic that leads from the exact count to another number."""

from __future__ import annotations

from dataclasses import dataclass

from minilm.inspection.reconciliation.numbers import Number

# A term that touches this is about the whole model, and is compatible with no other.
EVERYTHING = "*"

# The ranks of a term: what the target itself holds, or has left out of it by a common way of counting;
# what another file of the same model may hold; the same model in another size; any one component left out.
LIKELY, OTHER_FILE, OTHER_SIZE, ONE_COMPONENT = range(4)


@dataclass(frozen=True)
class Term:
    """A difference between a count and the exact one: more (``count`` > 0) or fewer parameters.

    ``formula`` derives the count; ``touches`` are the declared tensors, or other names, that it covers:
    two terms that touch the same are never added up. ``stored`` marks what files hold beside the
    parameters, which explains sizes of files too. ``usual`` marks terms that are common enough to
    explain a rounded number, which many terms would match. ``rank`` orders terms by how likely they are:
    see `LIKELY`.
    """

    name: str
    count: int
    formula: str
    touches: tuple[str, ...]
    stored: bool = False
    usual: bool = True
    rank: int = 0

    def is_compatible(self, other: Term) -> bool:
        """Whether both can be true at once."""
        names = {*self.touches, *other.touches}
        return EVERYTHING not in names and len(names) == len(self.touches) + len(other.touches)


@dataclass(frozen=True)
class Explanation:
    """``value`` is ``start_count`` plus the terms, in the unit of ``reading``.

    ``difference`` is the remainder of the number. ``parts`` are the terms, under their name in the JSON.
    ``text`` is all of it as one line of arithmetic.
    """

    start: str
    start_count: int
    parts: tuple[Term, ...]
    reading: str
    value: int
    difference: int
    text: str


@dataclass(frozen=True)
class Reconciliation:
    """Explanations, simplest first; without one, the ``nearest`` candidates.

    With explanations a number is not ``explained`` where chance alone would explain most such numbers.
    ``exact`` is true where the first explanation has no remainder. ``chance`` is, at most, the share of
    numbers near the total, of as many digits, that this search explains by coincidence.
    """

    number: Number
    total: int
    explained: bool
    exact: bool
    chance: float
    explanations: tuple[Explanation, ...]
    nearest: tuple[Explanation, ...]
