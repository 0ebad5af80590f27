"""What a reconciliation answers: the arithmetic that leads from the exact count to another number."""

from __future__ import annotations

from dataclasses import dataclass

from minilm.inspection.reconciliation.numbers import Number

# A part that touches this goes with no other one: it says something of the whole.
EVERYTHING = "*"


@dataclass(frozen=True)
class Part:
    """Something that a count has more (``count`` > 0) or less than the exact one.

    ``formula`` says where the count comes from; ``touches`` are the declared tensors, or other things,
    that it speaks of: two parts that touch the same are never put together. ``stored`` marks what
    files hold and a model does not count, so that sizes of files are explained by it too; ``usual``
    what is plausible enough to explain a rounded number, of which it explains many.
    """

    name: str
    count: int
    formula: str
    touches: tuple[str, ...]
    stored: bool = False
    usual: bool = True

    def goes_with(self, other: Part) -> bool:
        """Whether both can be true at once."""
        both = {*self.touches, *other.touches}
        return EVERYTHING not in both and len(both) == len(self.touches) + len(other.touches)


@dataclass(frozen=True)
class Explanation:
    """``value`` = what ``reading`` makes of ``start_count`` plus the parts; ``difference`` is what is left.

    ``text`` says all of it in one line of arithmetic.
    """

    start: str
    start_count: int
    parts: tuple[Part, ...]
    reading: str
    value: int
    difference: int
    text: str


@dataclass(frozen=True)
class Reconciliation:
    """The answer: explanations, simplest first; without one, the ``nearest`` that were found.

    ``exact`` says that the first one has nothing left. ``chance`` is the share of numbers near the
    total, written with as many digits, that this search explains by coincidence, at most.
    """

    number: Number
    total: int
    explained: bool
    exact: bool
    chance: float
    explanations: tuple[Explanation, ...]
    nearest: tuple[Explanation, ...]
