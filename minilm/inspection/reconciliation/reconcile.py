"""reconcile(report, layout, number): a number from elsewhere as the exact count and named parts.

The fewest parts win. An exact number may have up to three; a rounded one only one, because with
more some combination always fits. How often chance alone would do is said with the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import comb

from minilm.inspection.reconciliation.candidate_terms import declared_parts, parts, vocabularies
from minilm.inspection.reconciliation.explanation import Explanation, Part, Reconciliation
from minilm.inspection.reconciliation.numbers import Number
from minilm.inspection.report import Report
from minilm.ledger.approximation import TEXTBOOK
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ASCII, format_polynomial, symbol

# Combinations are tried while they are fewer than this share of the numbers near the total.
CHANCE_ALLOWED = 0.005
# A rounded number that so many would explain needs the exact count itself.
CHANCE_OF_ROUNDED = 0.25
MOST_SHOWN = 5
MOST_NEAREST = 3
FEWEST_ZEROS = 3  # 124000000 may be rounded; 124439800 is taken at its word
EXACT_COUNT = "exact count"

BYTES = {"float32": 32, "bfloat16 or float16": 16, "8 bits": 8, "4 bits": 4}


def reconcile(report: Report, layout: Layout | None, number: Number) -> Reconciliation:
    """Explain ``number`` by ``report.parameters.total`` and parts of ``report`` and ``layout``.

    ``layout`` is None for what no family declares; then only what was counted can explain.
    """
    book = Book.of(report, layout)
    readings = list(_readings(report, number))
    found: list[Candidate] = []
    tried = 0
    if not number.is_rounded:
        for reading in readings:
            some, more = exact(book, reading)
            found, tried = found + some, tried + more
    chance = min(1.0, tried / book.total)
    if not found:
        rounded = [r for r in map(_by_its_zeros, readings) if r.number.is_rounded]
        found = [candidate for r in rounded for candidate in _rounded(book, r)]
        if rounded:
            chance = _covered(book, rounded[0].number)
        if chance > CHANCE_OF_ROUNDED:
            found = [candidate for candidate in found if candidate.cost == 0]
    cost = min((candidate.cost for candidate in found), default=0)
    best = sorted((c for c in found if c.cost == cost), key=lambda c: c.rank)[:MOST_SHOWN]
    nearest = () if found else _nearest(book, readings[0])
    return Reconciliation(
        number,
        book.total,
        bool(best),
        bool(best) and best[0].difference == 0,
        chance,
        tuple(candidate.explanation() for candidate in best),
        tuple(candidate.explanation() for candidate in nearest),
    )


@dataclass(frozen=True)
class _Start:
    """A count to begin with: the exact one, or a rule of thumb."""

    name: str
    count: int


@dataclass(frozen=True)
class Reading:
    """One meaning of the number: of elements of ``bits`` bits when it is a size, else of elements."""

    text: str
    number: Number
    bits: int = 8
    extra_cost: int = 0
    plain: bool = True

    def value(self, count: int) -> int:
        """What ``count`` elements come to in the number's own unit."""
        return count * self.bits // 8


@dataclass(frozen=True)
class Candidate:
    """A start and parts that may be the number in one of its meanings."""

    start: _Start
    parts: tuple[Part, ...]
    reading: Reading

    @property
    def count(self) -> int:
        """Elements."""
        return self.start.count + sum(part.count for part in self.parts)

    @property
    def value(self) -> int:
        """The count in the number's own unit."""
        return self.reading.value(self.count)

    @property
    def difference(self) -> int:
        """What the number has more."""
        return self.reading.number.value - self.value

    @property
    def cost(self) -> int:
        """Parts, and whatever else has to be assumed."""
        return len(self.parts) + (self.start.name != EXACT_COUNT) + self.reading.extra_cost

    @property
    def rank(self) -> tuple[bool, int]:
        """Rounded before cut off, then the closer one."""
        number = self.reading.number
        cut_off = number.is_rounded and 2 * abs(self.difference) > number.rounding
        return cut_off, abs(self.difference)

    def fits(self) -> bool:
        """Whether nothing is left, or no more than rounding or cutting off digits leaves."""
        number = self.reading.number
        if not number.is_rounded:
            return self.difference == 0
        return (
            2 * abs(self.difference) <= number.rounding or 0 <= -self.difference < number.rounding
        )

    def explanation(self) -> Explanation:
        """The same as plain values."""
        return Explanation(
            self.start.name,
            self.start.count,
            self.parts,
            self.reading.text,
            self.value,
            self.difference,
            _sentence(self),
        )


Single = tuple[_Start, tuple[Part, ...], int]


@dataclass(frozen=True)
class Book:
    """Everything that a number is looked up in.

    ``singles`` are the starts alone and the exact count with one part, each with its count; ``pairs``
    are two parts that go together, by their sum, ``with_rows`` another vocabulary and a part of the
    model that has it; both are empty where they are too many for this total.
    """

    total: int
    parts: tuple[Part, ...]
    singles: tuple[Single, ...]
    pairs: Mapping[int, Sequence[tuple[Part, Part]]]
    with_rows: Mapping[int, Sequence[tuple[Part, Part]]]
    num_pairs: int

    @staticmethod
    def of(report: Report, layout: Layout | None) -> Book:
        """Collect what ``report`` and ``layout`` can explain a number with."""
        total, every = max(1, report.parameters.total), parts(report, layout)
        others = list(vocabularies(layout)) if layout else []
        singles = tuple(_singles(total, layout, (*every, *(part for _, part in others))))
        changed = list(_linear_in_rows(report, layout)) if layout else []
        num_pairs = comb(len(every), 2) + len(others) * len(changed)
        pairs: dict[int, list[tuple[Part, Part]]] = {}
        with_rows: dict[int, list[tuple[Part, Part]]] = {}
        if len(singles) + num_pairs <= CHANCE_ALLOWED * total:
            for pair in combinations(every, 2):
                if pair[0].goes_with(pair[1]):
                    pairs.setdefault(pair[0].count + pair[1].count, []).append(pair)
            for (rows, vocabulary), (part, per_row) in product(others, changed):
                again = replace(part, count=part.count + rows * per_row)
                together = vocabulary.count + again.count
                with_rows.setdefault(together, []).append((vocabulary, again))
        return Book(total, every, singles, pairs, with_rows, num_pairs)


def _singles(total: int, layout: Layout | None, every: Sequence[Part]) -> Iterator[Single]:
    exact = _Start(EXACT_COUNT, total)
    yield exact, (), total
    for rule in _rules(layout) if layout else ():
        yield rule, (), rule.count
    for part in every:
        yield exact, (part,), total + part.count


def _linear_in_rows(report: Report, layout: Layout) -> Iterator[tuple[Part, int]]:
    """Each part with what one more token row adds to it: every count is linear in V."""
    rows = layout.symbols.get("V", 0)
    one_more = replace(layout, symbols={**layout.symbols, "V": rows + 1})
    both = zip(declared_parts(report, layout), declared_parts(report, one_more), strict=True)
    for part, other in both:
        if part.count:
            yield part, other.count - part.count


def _rules(layout: Layout) -> Iterator[_Start]:
    """The textbook counts that papers print."""
    vocabulary, depth, width = (symbol(letter) for letter in "VLd")
    blocks = 12 * depth * width * width
    if {"V", "L", "d"} <= layout.symbols.keys():
        for rule in (TEXTBOOK, vocabulary * width + blocks, blocks):
            name = f"the rule of thumb {format_polynomial(rule, ASCII)}"
            yield _Start(name, rule.value(layout.symbols))


def _readings(report: Report, number: Number) -> Iterator[Reading]:
    """What the number can mean; the plain meaning first."""
    if number.is_bytes:
        for text, bits in BYTES.items():
            yield Reading(f"bytes, {text}", number, bits, plain=False)
            binary, decimal = _binary(number.scale)
            if binary:  # MB for what is MiB, and the other way round
                other = number.times(binary, decimal)
                name = f"bytes, {text}, with {number.scale:,} read as {other.scale:,}"
                yield Reading(name, other, bits, 1, plain=False)
        return
    yield Reading("", number)
    if number.is_rounded and number.scale > 1:
        binary, decimal = _binary(number.scale)
        other = number.times(binary, decimal)
        yield Reading(f"in units of {other.scale:,}", other, 8, 1, plain=False)
    if not number.is_rounded:
        for text, bits in (("float32", 32), ("bfloat16 or float16", 16)):
            yield Reading(f"bytes, {text}", number, bits, 1, plain=False)


def _binary(scale: int) -> tuple[int, int]:
    """The other unit of the same name over this one: 2^20 over 10^6 for MB."""
    for power in range(1, 5):
        if scale == 1000**power:
            return 1024**power, scale
        if scale == 1024**power:
            return 1000**power, scale
    return 0, 1


def exact(book: Book, reading: Reading) -> tuple[list[Candidate], int]:
    """Explanations with nothing left, by the fewest parts, and how many were tried."""
    wanted = reading.number.value
    found = [
        Candidate(start, chosen, reading)
        for start, chosen, count in book.singles
        if reading.value(count) == wanted and (reading.plain or all(part.stored for part in chosen))
    ]
    tried = len(book.singles)
    if found or not reading.plain or not book.pairs:
        return found, tried
    start, missing = _Start(EXACT_COUNT, book.total), wanted - book.total
    pairs = (*book.pairs.get(missing, ()), *book.with_rows.get(missing, ()))
    found = [Candidate(start, pair, reading) for pair in pairs]
    tried += book.num_pairs
    triples = comb(len(book.parts), 3)
    if found or tried + triples > CHANCE_ALLOWED * book.total:
        return found, tried
    # Each three are met three times: once for each that is taken last.
    chosen = {
        frozenset((*pair, part)): (*pair, part)
        for part in reversed(book.parts)
        for pair in book.pairs.get(missing - part.count, ())
        if part.goes_with(pair[0]) and part.goes_with(pair[1])
    }
    return [Candidate(start, three, reading) for three in chosen.values()], tried + triples


def _by_its_zeros(reading: Reading) -> Reading:
    """124000000 as a number rounded to millions; one with fewer zeros than three as it is."""
    number = reading.number
    zeros = len(str(number.value)) - len(str(number.value).rstrip("0"))
    if number.is_rounded or not reading.plain or zeros < FEWEST_ZEROS:
        return reading
    return replace(reading, number=replace(number, rounding=10**zeros))


def _rounded(book: Book, reading: Reading) -> list[Candidate]:
    """Explanations within the rounding, of at most one part; odd readings explain the whole only."""
    candidates = (Candidate(start, chosen, reading) for start, chosen, _ in book.singles)
    size = reading.number.is_bytes
    return [
        candidate
        for candidate in candidates
        if candidate.cost <= 1
        and all(part.usual and (part.stored or not size) for part in candidate.parts)
        and candidate.fits()
    ]


def _covered(book: Book, number: Number) -> float:
    """The share of numbers from half to one and a half times the total that `_rounded` explains."""
    low, high = book.total // 2, book.total + book.total // 2
    covered, end = 0, low
    usual = (count for _, chosen, count in book.singles if all(part.usual for part in chosen))
    for value in sorted(usual):
        # A count explains what rounds or is cut off to it.
        begin = max(end, value - number.rounding)
        end = max(end, min(high, value + number.rounding // 2))
        covered += max(0, end - begin)
    return min(1.0, covered / max(1, high - low))


def _nearest(book: Book, reading: Reading) -> list[Candidate]:
    wanted = reading.number.value
    nearest = sorted(book.singles, key=lambda single: abs(wanted - reading.value(single[2])))
    return [Candidate(start, chosen, reading) for start, chosen, _ in nearest[:MOST_NEAREST]]


def _sentence(candidate: Candidate) -> str:
    """The arithmetic in one line: 163,037,184 = 124,439,808 + 38,597,376 (the tied head ...)."""
    start, reading, number = candidate.start, candidate.reading, candidate.reading.number
    sign = "=" if candidate.difference == 0 else "~"
    text = f"{number.text if number.is_rounded else format(number.value, ',')} {sign} "
    if reading.bits != 8 or number.is_bytes:
        text += f"{candidate.value:,} bytes = {reading.bits / 8:g} x "
        if candidate.parts:
            text += f"{candidate.count:,} = "
    elif candidate.parts and sign == "~":
        text += f"{candidate.count:,} = "
    text += f"{start.count:,}"
    if start.name != EXACT_COUNT or not candidate.parts:
        text += f" ({start.name})"
    for part in candidate.parts:
        text += f" {'-' if part.count < 0 else '+'} {abs(part.count):,} ({part.name})"
    if reading.text:
        text += f"; {reading.text}"
    if candidate.difference == 0:
        return text
    if candidate.fits():
        return f"{text}; within the rounding ({candidate.difference:+,})"
    return f"{text}; {abs(candidate.difference):,} {'more' if candidate.difference > 0 else 'less'}"
