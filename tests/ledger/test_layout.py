"""What a Layout derives where an architecture's own tests do not reach: formulas, the textbook count."""

from minilm.ledger.approximation import textbook
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import symbol

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
