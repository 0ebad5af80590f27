"""Polynomials over named dimensions (V d L T h g k f ...), with exact integer coefficients.

Parameter counts are sums of products of dimensions, so this is all the algebra the ledger needs.
Like terms are collected on construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# The usual order of the letters in a product; other symbols follow alphabetically.
LETTERS = "BELSDMVTRcdfmshgke"

# What a letter stands for, in the few words of a legend.
MEANINGS = {
    "B": "batch size",
    "V": "vocabulary",
    "T": "context",
    "L": "layers",
    "S": "distinct layers, run L times in all",
    "d": "model width",
    "f": "feed-forward width",
    "h": "heads",
    "g": "key/value heads",
    "k": "head width",
    "E": "experts",
    "e": "active experts",
    "D": "dense layers",
    "M": "expert layers",
    "m": "expert width",
    "s": "shared expert width",
    "q": "query latent width",
    "c": "key/value latent width",
    "r": "RoPE head width",
    "n": "head width without RoPE",
    "v": "value head width",
    "j": "indexer heads",
    "w": "indexer head width",
    "x": "keys of experts, twice",
    "u": "output groups",
    "b": "output latent width of a group",
    "y": "width of an output group",
    "t": "rank of norms' gates",
    "Z": "experts that do nothing",
    "A": "residual streams",
    "l": "LAuReL rank",
    "U": "vocabulary of per-layer embeddings",
    "G": "key/value heads of full attention",
    "K": "head width of full attention",
    "N": "multi-token prediction modules",
    "p": "embedding width",
    "o": "output embedding width",
    "C": "classes",
    "R": "n-gram table rows",
    "W": "encoder or vision width",
    "Y": "encoder or vision layers",
    "F": "encoder or vision feed-forward width",
    "P": "encoder positions, image patches",
    "I": "mixer width",
    "X": "state size",
    "H": "mixer heads",
    "J": "groups of mixer heads",
    "a": "mixer key heads",
    "Q": "mixer key head width",
    "O": "mixer value head width",
    "i": "rank of the time step",
    "z": "convolution taps",
    **{f"L{number}": f"layers of stage {number}" for number in range(1, 10)},
}
# Stages of these are each twice as wide as the one before.
_DOUBLING = ("dinat", "donut-swin", "focalnet", "swin", "swinv2")
# A family's own meaning of a letter.
FAMILY_MEANINGS = {
    ("minilm", "c"): "convolution taps",
    ("minilm", "r"): "adapter rank",
    ("gemma3n_text", "p"): "per-layer embedding width",
    ("gemma4_text", "p"): "per-layer embedding width",
    ("gemma4_unified_text", "p"): "per-layer embedding width",
    ("gemma3n", "p"): "per-layer embedding width",
    ("gemma3n", "a"): "audio width",
    ("gemma3n", "z"): "audio layers",
    ("gemma4", "p"): "per-layer embedding width",
    ("gemma4", "a"): "audio width",
    ("gemma4", "z"): "audio layers",
    ("phi4_multimodal", "a"): "audio width",
    ("phi4_multimodal", "z"): "audio layers",
    ("recurrent_gemma", "Q"): "width of a head's gates",
    ("blip-2", "a"): "query transformer width",
    ("blip-2", "z"): "query transformer layers",
    ("clip", "p"): "projection width",
    ("instructblip", "a"): "query transformer width",
    ("instructblip", "z"): "query transformer layers",
    ("instructblipvideo", "a"): "query transformer width",
    ("instructblipvideo", "z"): "query transformer layers",
    ("fun_asr_nano", "a"): "audio width",
    ("fun_asr_nano", "z"): "audio layers",
    ("apertus1p5_text", "o"): "tokens that the head puts out",
    ("inkling2_loop_text", "r"): "rank of the gates of messages",
    ("mllama", "z"): "global vision layers",
    ("mobilebert", "w"): "bottleneck width",
    ("ultrabert", "p"): "prediction head width",
    **{(name, "p"): "prediction network width" for name in ("parakeet_rnnt", "parakeet_tdt")},
    **{(name, "p"): "pooler width" for name in ("deit", "siglip", "siglip2", "vit")},
    **{
        (name, letter): meaning
        for name in ("audioflamingo3", "glmasr", "musicflamingo", "qwen2_audio", "voxtral")
        for letter, meaning in (("a", "audio width"), ("z", "audio layers"))
    },
    **{(name, "q"): "objects to find" for name in ("detr", "table-transformer", "yolos")},
    **{(name, "d"): "width of the first stage" for name in _DOUBLING},
    ("zaya", "v"): "half the width of all values",
    ("zaya", "r"): "router width",
}

Monomial = tuple[tuple[str, int], ...]  # (("L", 1), ("d", 2)) is L*d^2, in the order of LETTERS


class Polynomial:
    """An immutable sum of monomials. Takes int in +, - and *; compares by value."""

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self.terms = {monomial: c for monomial, c in terms.items() if c}

    def __add__(self, other: Polynomial | int) -> Polynomial:
        terms = dict(self.terms)
        for monomial, coefficient in as_polynomial(other).terms.items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return Polynomial(terms)

    def __mul__(self, other: Polynomial | int) -> Polynomial:
        terms: dict[Monomial, int] = {}
        for left, a in self.terms.items():
            for right, b in as_polynomial(other).terms.items():
                powers = dict(left)
                for letter, power in right:
                    powers[letter] = powers.get(letter, 0) + power
                monomial = tuple(sorted(powers.items(), key=lambda item: _position(item[0])))
                terms[monomial] = terms.get(monomial, 0) + a * b
        return Polynomial(terms)

    def __sub__(self, other: Polynomial | int) -> Polynomial:
        return self + as_polynomial(other) * -1

    __radd__ = __add__
    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Polynomial, int)):
            return NotImplemented
        return self.terms == as_polynomial(other).terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __repr__(self) -> str:
        return f"Polynomial({format_polynomial(self, ASCII)})"

    def letters(self) -> set[str]:
        """The symbols that it is over."""
        return {letter for monomial in self.terms for letter, _ in monomial}

    def substituted(self, values: Mapping[str, Polynomial | int]) -> Polynomial:
        """The polynomial with the symbols of ``values`` replaced, the others as they are."""
        total = ZERO
        for monomial, coefficient in self.terms.items():
            product = as_polynomial(coefficient)
            for letter, power in monomial:
                for _ in range(power):
                    product = product * values.get(letter, symbol(letter))
            total = total + product
        return total

    def value(self, symbols: Mapping[str, int]) -> int:
        """The exact integer at these values of the symbols. Raises KeyError for a missing one."""
        total = 0
        for monomial, coefficient in self.terms.items():
            product = coefficient
            for letter, power in monomial:
                product *= symbols[letter] ** power
            total += product
        return total


def symbol(name: str) -> Polynomial:
    """The polynomial of one dimension, such as ``symbol("d")``."""
    return Polynomial({((name, 1),): 1})


def letter_meaning(letter: str, family: str) -> str:
    """What ``letter`` stands for in the formulas of ``family``; empty for a letter of no table."""
    return FAMILY_MEANINGS.get((family, letter), MEANINGS.get(letter, ""))


def as_polynomial(value: Polynomial | int) -> Polynomial:
    """An integer as a constant polynomial; a polynomial unchanged."""
    return value if isinstance(value, Polynomial) else Polynomial({(): value})


ZERO = Polynomial({})
ONE = as_polynomial(1)


@dataclass(frozen=True)
class Notation:
    """How a product and a power are written."""

    times: str
    superscript: bool = False

    def power(self, base: str, exponent: int) -> str:
        """``base`` to the ``exponent``; the first power is the base itself."""
        if exponent == 1:
            return base
        if self.superscript:
            return base + str(exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{base}^{exponent}"


ASCII = Notation("*")  # 12*L*d^2
PRETTY = Notation("", superscript=True)  # 12Ld²


def format_polynomial(
    polynomial: Polynomial, notation: Notation, values: Mapping[str, int] | None = None
) -> str:
    """The polynomial as text, highest powers first; ``values`` are printed instead of letters."""
    text = ""
    for monomial in _sorted_monomials(polynomial):
        coefficient = polynomial.terms[monomial]
        factors = [
            notation.power(str(values[letter]) if values else letter, power)
            for letter, power in monomial
        ]
        if abs(coefficient) != 1 or not factors:
            factors.insert(0, str(abs(coefficient)))
        sign = "-" if coefficient < 0 else "+"
        text += (f" {sign} " if text else sign.strip("+")) + notation.times.join(factors)
    return text or "0"


def format_factored(
    polynomial: Polynomial, notation: Notation, values: Mapping[str, int] | None = None
) -> str:
    """As `format_polynomial`, with the letters common to all terms factored out: (V + T + 2)*d."""
    monomials = [dict(monomial) for monomial in polynomial.terms]
    shared = {
        letter: min(powers.get(letter, 0) for powers in monomials)
        for letter in (monomials[0] if len(monomials) > 1 else {})
    }
    common: Monomial = tuple((letter, power) for letter, power in shared.items() if power)
    if not common:
        return format_polynomial(polynomial, notation, values)
    quotient: dict[Monomial, int] = {}
    for monomial, coefficient in polynomial.terms.items():
        powers = {letter: power - shared.get(letter, 0) for letter, power in monomial}
        quotient[tuple(item for item in powers.items() if item[1])] = coefficient
    factor = format_polynomial(Polynomial({common: 1}), notation, values)
    return f"({format_polynomial(Polynomial(quotient), notation, values)}){notation.times}{factor}"


def _position(letter: str) -> tuple[int, str]:
    index = LETTERS.find(letter)
    return (len(LETTERS) if index < 0 else index, letter)


def _sorted_monomials(polynomial: Polynomial) -> list[Monomial]:
    letters = sorted({pair[0] for monomial in polynomial.terms for pair in monomial}, key=_position)

    def powers(monomial: Monomial) -> tuple[int, ...]:
        exponents = dict(monomial)
        return tuple(exponents.get(letter, 0) for letter in letters)

    return sorted(polynomial.terms, key=powers, reverse=True)
