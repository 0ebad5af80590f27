"""reconcile(report, layout, number): another count explained as the exact count and named terms.

The fewest terms win. An exact number may have up to three; a rounded one only one, because some sum of
more always fits. The answer states the chance of a coincidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import comb
from typing import NamedTuple

from minilm.inspection.reconciliation.candidate_terms import (
    candidate_terms,
    declared_terms,
    vocabulary_terms,
)
from minilm.inspection.reconciliation.explanation import (
    LIKELY,
    OTHER_FILE,
    Explanation,
    Reconciliation,
    Term,
)
from minilm.inspection.reconciliation.numbers import Number
from minilm.inspection.report import Report
from minilm.ledger.approximation import TEXTBOOK
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ASCII, format_polynomial, symbol

# Sums are searched while they are fewer than this share of the numbers near the total.
MAX_CHANCE = 0.005
# Where chance alone would explain a larger share of rounded numbers, one of them is not explained.
MAX_CHANCE_OF_ROUNDED = 0.5
MAX_EXPLANATIONS = 5
MAX_NEAREST = 3
MIN_ZEROS = 3  # 124000000 may be rounded; 124439800 is not
EXACT_COUNT = "exact count"

BYTES = {"float32": 32, "bfloat16 or float16": 16, "8 bits": 8, "4 bits": 4}


def reconcile(
    report: Report, layout: Layout | None, number: Number, copies: Sequence[Term] = ()
) -> Reconciliation:
    """Explain ``number`` by ``report.parameters.total`` and terms of ``report`` and ``layout``.

    Without a ``layout`` only the report's own counts can explain it. ``copies`` are terms that the
    target's values have shown.
    """
    index = SearchIndex.of(report, layout, copies)
    readings = list(_readings(report, number))
    candidates: list[Candidate] = []
    num_tried = 0
    if not number.is_rounded:
        for reading in readings:
            matches, num_sums = exact_matches(index, reading)
            candidates += matches
            num_tried += num_sums
    chance = min(1.0, num_tried / index.total)
    if not candidates:
        rounded = [r for r in map(_rounded_by_zeros, readings) if r.number.is_rounded]
        candidates = [candidate for r in rounded for candidate in _rounded_matches(index, r)]
        if rounded:
            chance = _coverage(index, rounded[0].number)
        if chance > MAX_CHANCE_OF_ROUNDED:
            # The exact count needs no term, and alone explains fewer numbers.
            plain = [candidate for candidate in candidates if candidate.cost == 0]
            if plain:
                candidates = plain
                chance = _coverage(replace(index, sums=index.sums[:1]), rounded[0].number)
    cost = min((candidate.cost for candidate in candidates), default=0)
    cheapest = [candidate for candidate in candidates if candidate.cost == cost]
    # A coincidence beside a likely explanation would only be a false one.
    least = min((candidate.likelihood for candidate in cheapest), default=0)
    likely = [candidate for candidate in cheapest if candidate.likelihood == least]
    best = sorted(likely, key=lambda candidate: candidate.rank)[:MAX_EXPLANATIONS]
    nearest = () if candidates else _nearest_candidates(index, readings[0])
    return Reconciliation(
        number=number,
        total=index.total,
        explained=bool(best) and (best[0].difference == 0 or chance <= MAX_CHANCE_OF_ROUNDED),
        exact=bool(best) and best[0].difference == 0,
        chance=chance,
        explanations=tuple(candidate.explanation() for candidate in best),
        nearest=tuple(candidate.explanation() for candidate in nearest),
    )


@dataclass(frozen=True)
class Start:
    """A count to which terms are added: the exact one, or a rule of thumb."""

    name: str
    count: int


class Sum(NamedTuple):
    """A start plus terms, and their total."""

    start: Start
    terms: tuple[Term, ...]
    total: int


@dataclass(frozen=True)
class Reading:
    """One meaning of the number: a count, or the size of elements of ``bits`` bits in bytes."""

    text: str
    number: Number
    bits: int = 8
    extra_cost: int = 0
    plain: bool = True

    def value(self, count: int) -> int:
        """``count`` elements in the number's own unit."""
        return count * self.bits // 8


@dataclass(frozen=True)
class Candidate:
    """A sum that may be the number in one of its readings."""

    start: Start
    terms: tuple[Term, ...]
    reading: Reading

    @property
    def count(self) -> int:
        """Elements."""
        return self.start.count + sum(term.count for term in self.terms)

    @property
    def value(self) -> int:
        """The count in the number's own unit."""
        return self.reading.value(self.count)

    @property
    def difference(self) -> int:
        """The number minus the value."""
        return self.reading.number.value - self.value

    @property
    def cost(self) -> int:
        """The number of assumptions: terms, a rule of thumb, an unusual reading."""
        return len(self.terms) + (self.start.name != EXACT_COUNT) + self.reading.extra_cost

    @property
    def likelihood(self) -> int:
        """The rank of its least likely term; a rule of thumb is as what another file may hold."""
        start = LIKELY if self.start.name == EXACT_COUNT else OTHER_FILE
        return max((start, *(term.rank for term in self.terms)))

    @property
    def rank(self) -> tuple[bool, int]:
        """Sort key: rounded before cut off, then the closer one."""
        number = self.reading.number
        cut_off = number.is_rounded and 2 * abs(self.difference) > number.rounding
        return cut_off, abs(self.difference)

    def fits(self) -> bool:
        """Whether the difference is zero, or explained by rounding or cutting off digits."""
        number = self.reading.number
        if not number.is_rounded:
            return self.difference == 0
        return (
            2 * abs(self.difference) <= number.rounding or 0 <= -self.difference < number.rounding
        )

    def explanation(self) -> Explanation:
        """The same as plain values, with its sentence."""
        return Explanation(
            start=self.start.name,
            start_count=self.start.count,
            parts=self.terms,
            reading=self.reading.text,
            value=self.value,
            difference=self.difference,
            text=_sentence(self),
        )


@dataclass(frozen=True)
class SearchIndex:
    """The sums in which a number is looked up.

    ``sums`` are the starts alone and the exact count with one of ``terms`` or a vocabulary.
    ``pairs`` are two compatible terms, ``vocabulary_pairs`` another vocabulary and a term of the
    model that has it, both by their sum; they are empty where they would be too many for ``total``.
    """

    total: int
    terms: tuple[Term, ...]
    sums: tuple[Sum, ...]
    pairs: Mapping[int, Sequence[tuple[Term, Term]]]
    vocabulary_pairs: Mapping[int, Sequence[tuple[Term, Term]]]
    num_pairs: int

    @staticmethod
    def of(report: Report, layout: Layout | None, copies: Sequence[Term] = ()) -> SearchIndex:
        """Collect the terms of ``report``, ``layout`` and ``copies``, and their sums."""
        total, terms = max(1, report.parameters.total), candidate_terms(report, layout, copies)
        vocabularies = list(vocabulary_terms(layout)) if layout else []
        sums = tuple(_sums(total, layout, (*terms, *(term for _, term in vocabularies))))
        per_row_terms = list(_terms_per_row(report, layout)) if layout else []
        num_pairs = comb(len(terms), 2) + len(vocabularies) * len(per_row_terms)
        pairs: dict[int, list[tuple[Term, Term]]] = {}
        vocabulary_pairs: dict[int, list[tuple[Term, Term]]] = {}
        if len(sums) + num_pairs <= MAX_CHANCE * total:
            for pair in combinations(terms, 2):
                if pair[0].is_compatible(pair[1]):
                    pairs.setdefault(pair[0].count + pair[1].count, []).append(pair)
            for (rows, vocabulary), (term, per_row) in product(vocabularies, per_row_terms):
                resized = replace(term, count=term.count + rows * per_row)
                count = vocabulary.count + resized.count
                vocabulary_pairs.setdefault(count, []).append((vocabulary, resized))
        return SearchIndex(
            total=total,
            terms=terms,
            sums=sums,
            pairs=pairs,
            vocabulary_pairs=vocabulary_pairs,
            num_pairs=num_pairs,
        )


def _sums(total: int, layout: Layout | None, terms: Sequence[Term]) -> Iterator[Sum]:
    exact = Start(EXACT_COUNT, total)
    yield Sum(exact, (), total)
    for rule in _rules_of_thumb(layout) if layout else ():
        yield Sum(rule, (), rule.count)
    for term in terms:
        yield Sum(exact, (term,), total + term.count)


def _terms_per_row(report: Report, layout: Layout) -> Iterator[tuple[Term, int]]:
    """Each declared term, and what one more token row adds to it: every count is linear in V."""
    rows = layout.symbols.get("V", 0)
    one_more = replace(layout, symbols={**layout.symbols, "V": rows + 1})
    pairs = zip(declared_terms(report, layout), declared_terms(report, one_more), strict=True)
    for term, larger in pairs:
        if term.count:
            yield term, larger.count - term.count


def _rules_of_thumb(layout: Layout) -> Iterator[Start]:
    """The textbook counts that papers print."""
    vocabulary, depth, width = (symbol(letter) for letter in "VLd")
    block_weights = 12 * depth * width * width
    if {"V", "L", "d"} <= layout.symbols.keys():
        for rule in (TEXTBOOK, vocabulary * width + block_weights, block_weights):
            name = f"the rule of thumb {format_polynomial(rule, ASCII)}"
            yield Start(name, rule.value(layout.symbols))


def _readings(report: Report, number: Number) -> Iterator[Reading]:
    """The possible meanings of the number, the plain one first."""
    if number.is_bytes:
        for text, bits in BYTES.items():
            yield Reading(f"bytes, {text}", number, bits, plain=False)
            binary, decimal = _binary(number.scale)
            if binary:  # MB written for MiB, or MiB for MB
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


def exact_matches(index: SearchIndex, reading: Reading) -> tuple[list[Candidate], int]:
    """Explanations without a remainder, of the fewest terms, and how many sums were searched."""
    value = reading.number.value
    matches = [
        Candidate(start, terms, reading)
        for start, terms, total in index.sums
        if reading.value(total) == value and (reading.plain or all(term.stored for term in terms))
    ]
    num_tried = len(index.sums)
    if matches or not reading.plain or not index.pairs:
        return matches, num_tried
    start, missing = Start(EXACT_COUNT, index.total), value - index.total
    pairs = (*index.pairs.get(missing, ()), *index.vocabulary_pairs.get(missing, ()))
    matches = [Candidate(start, pair, reading) for pair in pairs]
    num_tried += index.num_pairs
    num_triples = comb(len(index.terms), 3)
    if matches or num_tried + num_triples > MAX_CHANCE * index.total:
        return matches, num_tried
    # The search meets each triple three times, once for each term that it may add last.
    triples = {
        frozenset((*pair, term)): (*pair, term)
        for term in reversed(index.terms)
        for pair in index.pairs.get(missing - term.count, ())
        if term.is_compatible(pair[0]) and term.is_compatible(pair[1])
    }
    matches = [Candidate(start, triple, reading) for triple in triples.values()]
    return matches, num_tried + num_triples


def _rounded_by_zeros(reading: Reading) -> Reading:
    """124000000 as a number rounded to millions; unchanged with fewer than three zeros."""
    number = reading.number
    zeros = len(str(number.value)) - len(str(number.value).rstrip("0"))
    if number.is_rounded or not reading.plain or zeros < MIN_ZEROS:
        return reading
    return replace(reading, number=replace(number, rounding=10**zeros))


def _rounded_matches(index: SearchIndex, reading: Reading) -> list[Candidate]:
    """Explanations within the rounding, of cost 1 at most: unusual readings only of a start alone."""
    candidates = (Candidate(start, terms, reading) for start, terms, _ in index.sums)
    is_size = reading.number.is_bytes
    return [
        candidate
        for candidate in candidates
        if candidate.cost <= 1
        and all(term.usual and (term.stored or not is_size) for term in candidate.terms)
        and candidate.fits()
    ]


def _coverage(index: SearchIndex, number: Number) -> float:
    """The share of numbers within half the total of it that `_rounded_matches` explains."""
    low, high = index.total // 2, index.total + index.total // 2
    covered, end = 0, low
    usual = (total for _, terms, total in index.sums if all(term.usual for term in terms))
    for value in sorted(usual):
        # A count explains the numbers that round up, or are cut off, to it.
        begin = max(end, value - number.rounding)
        end = max(end, min(high, value + number.rounding // 2))
        covered += max(0, end - begin)
    return min(1.0, covered / max(1, high - low))


def _nearest_candidates(index: SearchIndex, reading: Reading) -> list[Candidate]:
    value = reading.number.value
    nearest = sorted(index.sums, key=lambda other: abs(value - reading.value(other.total)))
    return [Candidate(start, terms, reading) for start, terms, _ in nearest[:MAX_NEAREST]]


def _sentence(candidate: Candidate) -> str:
    """The arithmetic in one line: 163,037,184 = 124,439,808 + 38,597,376 (the tied head ...)."""
    start, reading, number = candidate.start, candidate.reading, candidate.reading.number
    sign = "=" if candidate.difference == 0 else "~"
    text = f"{number.text if number.is_rounded else format(number.value, ',')} {sign} "
    if reading.bits != 8 or number.is_bytes:
        text += f"{candidate.value:,} bytes = {reading.bits / 8:g} x "
        if candidate.terms:
            text += f"{candidate.count:,} = "
    elif candidate.terms and sign == "~":
        text += f"{candidate.count:,} = "
    text += f"{start.count:,}"
    if start.name != EXACT_COUNT or not candidate.terms:
        text += f" ({start.name})"
    for term in candidate.terms:
        text += f" {'-' if term.count < 0 else '+'} {abs(term.count):,} ({term.name})"
    if reading.text:
        text += f"; {reading.text}"
    if candidate.difference == 0:
        return text
    if candidate.fits():
        return f"{text}; within the rounding ({candidate.difference:+,})"
    return f"{text}; {abs(candidate.difference):,} {'more' if candidate.difference > 0 else 'less'}"
