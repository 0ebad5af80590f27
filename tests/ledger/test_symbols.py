"""Polynomials: arithmetic against integers, and their text."""

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from minilm.ledger.symbols import (
    ASCII,
    ONE,
    PRETTY,
    ZERO,
    Polynomial,
    as_polynomial,
    format_factored,
    format_polynomial,
    symbol,
)

V, T, L, d, f, g, k = (symbol(letter) for letter in "VTLdfgk")
VALUES = {"V": 7, "T": 5, "L": 3, "d": 11, "f": 13, "g": 2, "k": 17}

monomials = st.builds(
    lambda powers, c: _product(powers) * c,
    st.dictionaries(st.sampled_from("VTLdfgk"), st.integers(1, 3), max_size=4),
    st.integers(-9, 9),
)
polynomials = st.lists(monomials, max_size=5).map(lambda terms: sum(terms, ZERO))


def _product(powers: dict[str, int]) -> Polynomial:
    result = ONE
    for letter, power in powers.items():
        for _ in range(power):
            result = result * symbol(letter)
    return result


@given(polynomials, polynomials)
def test_arithmetic_is_that_of_the_values(a: Polynomial, b: Polynomial) -> None:
    x, y = a.value(VALUES), b.value(VALUES)
    assert (a + b).value(VALUES) == x + y
    assert (a * b).value(VALUES) == x * y
    assert (a - b).value(VALUES) == x - y
    assert a - a == ZERO == 0
    assert a + b == b + a
    assert hash(a + b) == hash(b + a)


@given(polynomials)
def test_what_is_written_has_the_same_value(a: Polynomial) -> None:
    for text in (format_polynomial(a, ASCII), format_factored(a, ASCII)):
        expression = sympy.sympify(text.replace("^", "**"), locals=dict(_SYMBOLS))
        assert expression.subs(VALUES) == a.value(VALUES)
    numbers = format_factored(a, ASCII, VALUES).replace("^", "**")
    assert sympy.sympify(numbers) == a.value(VALUES)


_SYMBOLS = {letter: sympy.Symbol(letter) for letter in VALUES}


def test_written_as_a_person_writes() -> None:
    blocks = L * (4 * d * d + 4 * d) + L * (8 * d * d + 5 * d) + 4 * L * d
    assert format_polynomial(blocks, PRETTY) == "12Ld² + 13Ld"
    assert format_polynomial(blocks, ASCII) == "12*L*d^2 + 13*L*d"
    assert format_polynomial(3 * L * d * f + 2 * L * d * g * k + 2 * L * d * d, PRETTY) == (
        "2Ld² + 3Ldf + 2Ldgk"
    )
    assert format_factored(V * d + T * d + 2 * d, PRETTY) == "(V + T + 2)d"
    assert format_factored(V * d, PRETTY) == "Vd"
    assert format_factored(V + 1, ASCII) == "V + 1"
    assert format_polynomial(ZERO, ASCII) == "0"
    assert format_polynomial(d - 2 * L, ASCII) == "-2*L + d"
    assert format_polynomial(d, ASCII, {"d": 768}) == "768"


def test_no_rounding_at_any_size() -> None:
    large = symbol("d") * symbol("d") * symbol("d")
    assert large.value({"d": 10**20 + 1}) == (10**20 + 1) ** 3


def test_a_symbol_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        (V * d).value({"V": 1})
    assert as_polynomial(3) == 3


def test_a_polynomial_is_no_text() -> None:
    assert d != "d"
    assert repr(2 * d) == "Polynomial(2*d)"
