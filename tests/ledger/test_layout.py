"""What a Layout derives where an architecture's own tests do not reach: formulas, the textbook count."""

from minilm.ledger.approximation import textbook
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import as_polynomial, symbol

d, L = symbol("d"), symbol("L")
BLOCK = Tensor("layers.{i}.weight", (d, d), "up", Role.MULTIPLIED, L)
HEAD = Tensor("head.weight", (d,), "LM head", Role.MULTIPLIED)
SYMBOLS = {"d": 4, "L": 3}


def test_a_formula_has_only_the_terms_that_there_are() -> None:
    formulas = [
        Layout("x", tensors, SYMBOLS).formula().symbolic
        for tensors in ((), (BLOCK,), (HEAD,), (BLOCK, HEAD))
    ]
    assert formulas == ["0", "L*d^2", "d", "L*d^2 + d"]


def test_without_a_vocabulary_there_is_no_textbook_count() -> None:
    assert textbook(Layout("x", (BLOCK,), SYMBOLS)) is None


def test_like_terms_of_layers_and_of_what_stands_outside_are_one() -> None:
    stages = Tensor("stages.{i}.weight", (d, d), "up", Role.ONCE, as_polynomial(3))
    gains = Tensor("stages.{i}.gain", (as_polynomial(5),), "gain", Role.SCALED, as_polynomial(2))
    patches = Tensor("patches", (d, d), "patches", Role.ONCE)
    formula = Layout("x", (BLOCK, stages, gains, patches, HEAD), SYMBOLS).formula()
    assert formula.symbolic == "L*d^2 + 4*d^2 + d + 10"
